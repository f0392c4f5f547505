// The actions on playgrounds, one function per command. Each gets the node it was called on, or asks for a playground.

import * as http from 'node:http';
import * as vscode from 'vscode';
import { type Binary, Failure } from './binary';
import type { Command } from './commands';
import type { Forwards } from './forwards';
import { forgetHosts } from './offer';
import { makeEntries, openHost, wake } from './open';
import type { Node } from './tree';
import type { Watch } from './watch';
import { type Machine, type Playground, catalog, condition, failedTasks, sshMachines, started } from './wire';
import { tell, withProgress } from './work';
import * as words from './words';

/** The parts of the extension that the actions use. */
export interface Tools {
  binary: Binary;
  watch: Watch;
  forwards: Forwards;
  log: vscode.LogOutputChannel;
  context: vscode.ExtensionContext;
  /** The binary's options that stand before every command. */
  options(): string[];
}

/** A server that speaks HTTP answers a request on loopback at once. */
const HTTP_MS = 2_000;

/** The subject of a command: a node of the view, the id of a playground, or nothing. */
export type Subject = Node | string | undefined;

export function actions(tools: Tools): Record<Command, (subject?: Subject) => Promise<void>> {
  const { binary, watch, forwards, log, context } = tools;

  /** The playground and machine that a command is meant for; asks when it was called on neither. */
  async function meant(subject: Subject, suits: (of: Playground) => boolean): Promise<Meant | undefined> {
    if (typeof subject === 'object') {
      const machine = 'machine' in subject ? subject.machine : undefined;
      return { playground: latest(subject.playground), machine };
    }
    const all = watch.situation.kind === 'known' ? watch.playgrounds : await watch.look();
    if (subject !== undefined) {
      const playground = all.find((one) => one.id === subject);
      return playground && { playground, machine: undefined };
    }
    const fitting = all.filter(suits);
    if (fitting.length === 0) {
      void vscode.window.showInformationMessage('There is no playground for this.');
      return undefined;
    }
    const items = fitting.map((playground) => ({
      label: words.title(playground),
      description: `${playground.template.name} · ${words.state(playground)}`,
      detail: playground.host,
      playground,
    }));
    const options = { placeHolder: 'Which playground?', matchOnDescription: true, matchOnDetail: true };
    const chosen = await vscode.window.showQuickPick(items, options);
    return chosen && { playground: chosen.playground, machine: undefined };
  }

  /** The same for actions that connect by SSH: throws where the platform does not allow it. */
  async function meantForSsh(subject: Subject, suits: (of: Playground) => boolean): Promise<Meant | undefined> {
    const it = await meant(subject, (one) => suits(one) && allowsSsh(one));
    if (!it) return undefined;
    const { playground, machine } = it;
    if (!(machine ? machine.ssh : allowsSsh(playground))) throw noSsh(machine ? `machine ${machine.name}` : words.title(playground));
    return it;
  }

  /** The newest version of a playground: a node of the view may have an older one. */
  function latest(playground: Playground): Playground {
    return watch.playgrounds.find((one) => one.id === playground.id) ?? playground;
  }

  async function machineOf({ playground, machine }: Meant): Promise<Machine | undefined> {
    const machines = sshMachines(playground);
    if (machine || machines.length <= 1) return machine ?? machines[0];
    const items = machines.map((one) => ({ label: one.name, description: one.user, machine: one }));
    return (await vscode.window.showQuickPick(items, { placeHolder: 'Which machine?' }))?.machine;
  }

  /** Runs a command of the binary under a notification. */
  async function run(title: string, args: string[]): Promise<void> {
    await withProgress(title, ({ signal, say }) => binary.run(args, { signal, onProgress: say }));
    await watch.done();
  }

  /** A terminal on this side, also in a window that is somewhere else. */
  async function terminal(name: string, args: string[]): Promise<void> {
    const shellPath = await binary.usable();
    const here = vscode.env.uiKind === vscode.UIKind.Desktop ? { cwd: vscode.Uri.file(context.globalStorageUri.fsPath) } : {};
    if ('cwd' in here) await vscode.workspace.fs.createDirectory(here.cwd);
    const iconPath = new vscode.ThemeIcon('vm-running');
    const shellArgs = [...tools.options(), ...args];
    vscode.window.createTerminal({ name, shellPath, shellArgs, iconPath, ...here }).show();
  }

  async function open(subject: Subject, newWindow: boolean): Promise<void> {
    const it = await meantForSsh(subject, exists);
    if (!it) return;
    const { playground, machine } = it;
    await withProgress(`Opening ${words.title(playground)}`, async (work) => {
      await makeEntries(binary, work);
      await wake(binary, playground.id, playground, work);
    });
    await watch.done();
    const user = (machine ?? sshMachines(playground)[0])?.user ?? 'root';
    await openHost(context.globalState, machine?.host ?? playground.host, user, newWindow);
  }

  async function start(): Promise<void> {
    const entries = binary.ask(['catalog', '--json'], catalog);
    const items = entries.then((all) =>
      all.map((entry) => ({
        label: entry.title || entry.name,
        description: [entry.name, entry.owner && `by ${entry.owner}`].filter(Boolean).join(' · '),
        detail: entry.description,
        entry,
      })),
    );
    const options = { placeHolder: 'What shall be started?', matchOnDescription: true, matchOnDetail: true };
    // A catalogue that cannot be read closes the list, and is told below.
    const chosen = await Promise.race([vscode.window.showQuickPick(items, options), entries.then(never)]);
    if (!chosen) return;
    const { entry } = chosen;
    const consent = entry.owner === '' ? [] : ['--consent'];
    if (consent.length > 0) {
      const yes = 'Trust and Start';
      const question = `${entry.title || entry.name} is by ${entry.owner}, who decides what runs in it. Do you trust them?`;
      if ((await vscode.window.showWarningMessage(question, { modal: true }, yes)) !== yes) return;
    }
    const title = `Starting ${entry.title || entry.name}`;
    const made = await withProgress(title, ({ signal, say }) =>
      binary.ask(['start', entry.name, '--json', ...consent], started, { signal, onProgress: say }),
    );
    await watch.done();
    const { id } = made;
    const failed = failedTasks(made).length > 0 ? `, but its ${words.state(made)}` : '';
    const running = `${words.title(made)} is running${failed}.`;
    void vscode.window.showInformationMessage(running, 'Open', 'Open in New Window', 'Terminal').then((answer) => {
      if (answer === 'Open') guarded(() => open(id, false));
      if (answer === 'Open in New Window') guarded(() => open(id, true));
      if (answer === 'Terminal') guarded(() => all['playgrounds.terminal'](id));
    });
  }

  async function destroy(subject: Subject): Promise<void> {
    const it = await meant(subject, () => true);
    if (!it) return;
    const yes = 'Destroy';
    const question = `Erase ${words.title(it.playground)} and everything in it?`;
    if ((await vscode.window.showWarningMessage(question, { modal: true }, yes)) !== yes) return;
    await run(`Erasing ${words.title(it.playground)}`, ['destroy', it.playground.id, '--yes']);
    await forgetHosts(it.playground.id);
  }

  async function extend(subject: Subject): Promise<void> {
    const it = await meant(subject, isUp);
    if (!it) return;
    const items = [30, 60, 120, 240, 480].map((minutes) => ({
      label: minutes < 60 ? `${minutes} minutes` : `${minutes / 60} hour${minutes > 60 ? 's' : ''}`,
      minutes,
    }));
    const end = words.end(it.playground);
    const placeHolder = `How much longer should ${words.title(it.playground)} run?${end && ` It ${end}.`}`;
    const chosen = await vscode.window.showQuickPick(items, { placeHolder });
    if (chosen) await run(`Extending ${words.title(it.playground)}`, ['extend', it.playground.id, String(chosen.minutes)]);
  }

  async function persist(subject: Subject): Promise<void> {
    const it = await meant(subject, (one) => isUp(one) && one.persistent !== true);
    if (!it) return;
    const title = words.title(it.playground);
    await run(`Keeping ${title}`, ['persist', it.playground.id]);
    vscode.window.setStatusBarMessage(`${title} is kept: when its time is up, it stops and is not erased`, 5000);
  }

  async function rename(subject: Subject): Promise<void> {
    const it = await meant(subject, () => true);
    if (!it) return;
    const title = await vscode.window.showInputBox({
      prompt: 'What shall the playground be called?',
      value: it.playground.title,
      validateInput: (text) => (text.trim() === '' ? 'It needs a title.' : undefined),
    });
    if (title !== undefined) await run(`Renaming ${words.title(it.playground)}`, ['rename', it.playground.id, '--', title.trim()]);
  }

  async function forward(subject: Subject): Promise<void> {
    const it = await meantForSsh(subject, isUp);
    const machine = it && (await machineOf(it));
    if (!machine) return;
    const port = await vscode.window.showInputBox({
      prompt: `Which port of ${machine.name}?`,
      placeHolder: '8080',
      validateInput: (text) => (isPort(text) ? undefined : 'A number from 1 to 65535.'),
    });
    if (port === undefined) return;
    const made = await withProgress(`Forwarding port ${port} of ${machine.name}`, (work) =>
      forwards.add(it.playground.id, machine.name, Number(port), work),
    );
    const local = made.localPort ?? 0;
    if (await speaksHttp(local)) {
      await browse(local);
    } else {
      void vscode.window.showInformationMessage(`Port ${port} of ${machine.name} is at localhost:${local}.`);
    }
  }

  const all: Record<Command, (subject?: Subject) => Promise<void>> = {
    'playgrounds.start': start,
    'playgrounds.refresh': () => watch.refresh(),
    'playgrounds.open': (subject) => open(subject, false),
    'playgrounds.openNew': (subject) => open(subject, true),
    'playgrounds.terminal': async (subject) => {
      const it = await meantForSsh(subject, exists);
      if (it) await terminal(words.title(it.playground), ['ssh', it.machine?.host ?? it.playground.host]);
    },
    'playgrounds.wake': async (subject) => {
      const it = await meant(subject, isDown);
      if (it) await run(`Starting ${words.title(it.playground)}`, ['start', it.playground.id, '--json']);
    },
    'playgrounds.stop': async (subject) => {
      const it = await meant(subject, isUp);
      if (it) await run(`Stopping ${words.title(it.playground)}`, ['stop', it.playground.id]);
    },
    'playgrounds.restart': async (subject) => {
      const it = await meant(subject, exists);
      if (it) await run(`Restarting ${words.title(it.playground)}`, ['restart', it.playground.id]);
    },
    'playgrounds.destroy': destroy,
    'playgrounds.extend': extend,
    'playgrounds.persist': persist,
    'playgrounds.rename': rename,
    'playgrounds.forward': forward,
    'playgrounds.browse': async (subject) => {
      if (typeof subject !== 'object' || subject.kind !== 'forward') return;
      await browse(subject.forward.localPort ?? 0);
    },
    'playgrounds.unforward': (subject) => {
      if (typeof subject === 'object' && subject.kind === 'forward') forwards.remove(subject.forward);
      return Promise.resolve();
    },
    'playgrounds.kube': async (subject) => {
      const it = await meantForSsh(subject, isUp);
      // The shell's environment names the playground's kubeconfig, which is gone with the shell.
      if (it) await terminal(`kube ${words.title(it.playground)}`, ['kube', it.playground.id, '--', vscode.env.shell || 'sh']);
    },
    'playgrounds.copySsh': async (subject) => {
      const it = await meantForSsh(subject, exists);
      if (!it) return;
      await vscode.env.clipboard.writeText(`ssh ${it.machine?.host ?? it.playground.host}`);
      vscode.window.setStatusBarMessage('The ssh command is in the clipboard', 3000);
    },
    'playgrounds.page': async (subject) => {
      const it = await meant(subject, () => true);
      const page = it && vscode.Uri.parse(it.playground.pageUrl);
      // Only an address of the web goes to the system's opener.
      if (page && /^https?$/.test(page.scheme)) await vscode.env.openExternal(page);
    },
    'playgrounds.login': async () => {
      await withProgress('Confirm the login in your browser', ({ signal, say }) =>
        binary.run(['login'], { signal, onProgress: say }),
      );
      await watch.refresh();
    },
    'playgrounds.log': () => {
      log.show();
      return Promise.resolve();
    },
    'playgrounds.doctor': async () => {
      const report = await withProgress('Looking for what is wrong', ({ signal, say }) =>
        binary.run(['doctor'], { signal, onProgress: say, anyExit: true }),
      );
      log.info(`doctor\n${report}`);
      log.show();
    },
    'playgrounds.install': async () => {
      const readme = vscode.Uri.joinPath(context.extensionUri, 'README.md').with({ fragment: 'the-program' });
      await vscode.commands.executeCommand('markdown.showPreview', readme);
    },
    'playgrounds.settings': async () => {
      await vscode.commands.executeCommand('workbench.action.openSettings', `@ext:${context.extension.id}`);
    },
  };
  return all;
}

interface Meant {
  playground: Playground;
  machine: Machine | undefined;
}

/** Runs an action and reports its failure. */
export function guarded(action: () => Promise<void>): void {
  action().catch(tell);
}

const never = (): Promise<never> => new Promise(() => undefined);
const exists = (playground: Playground): boolean => condition(playground) !== 'gone';
/** A playground whose machines are not known yet is not ruled out. */
const allowsSsh = (playground: Playground): boolean => playground.machines.length === 0 || sshMachines(playground).length > 0;
const noSsh = (subject: string): Failure => new Failure('failed', `the platform does not allow SSH access to ${subject}`);
const isDown = (playground: Playground): boolean => condition(playground) === 'down';
const isUp = (playground: Playground): boolean => ['up', 'starting', 'unknown'].includes(condition(playground));
const isPort = (text: string): boolean => /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535;

/** Shows a forward in the browser. Not by `env.openExternal`: in a remote window that leads through a tunnel of VS Code's own. */
async function browse(port: number): Promise<void> {
  await vscode.commands.executeCommand('vscode.open', vscode.Uri.parse(`http://127.0.0.1:${port}`));
}

/** Resolves to true if the server on this port answers an HTTP request. */
function speaksHttp(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const request = http.get({ host: '127.0.0.1', port, timeout: HTTP_MS }, (answer) => {
      answer.destroy();
      resolve(true);
    });
    request.on('timeout', () => request.destroy());
    request.on('error', () => {
      resolve(false);
    });
  });
}

// The containers of a machine: read, watched, shown, opened, forwarded.

import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import type { TreeItem } from 'vscode';
import { type Container, inOrder } from '../../src/containers';
import { readContainers } from '../../src/json';
import type { Node } from '../../src/tree';
import { containerItem, look } from '../../src/tree/containeritems';
import { commands, user } from './vscode';
import { acting, binary, folder, listed, menuOf, one, program, treeOf, until, viewOn } from './world';

const HOST = 'playground-0123456789abcdef01234567.docker-01';
const described = (name: string, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  id: `${name}-0123456789abcdef`, name, label: name, host: `${HOST}.${name}`, image: 'nginx:alpine', state: 'running', status: 'Up 3 minutes',
  engine: 'docker', pod: null, ports: [], ...more,
});
const line = (...containers: unknown[]): string => JSON.stringify({ machine: 'docker-01', host: HOST, containers });
const lost = (message: string, hint = '', kind = 'program'): string => JSON.stringify({ machine: 'docker-01', host: HOST, error: { kind, message, hint } });
const all = (...containers: unknown[]): Container[] => readContainers(line(...containers))?.list ?? [];
const read = (name: string, more?: Record<string, unknown>): Container => all(described(name, more))[0] as Container;
const [machine] = one().machines;
if (!machine) throw new Error();
const item = (name: string, more?: Record<string, unknown>): TreeItem => containerItem(one(), machine, read(name, more));

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, answers: [], asked: [], offered: [], cancels: false, clipboard: '' });
  commands.ran = [];
});

describe('containers in JSON', () => {
  it('are read leniently', () => {
    for (const text of ['{}', 'null', '7', '{"containers":7}', '{"error":null}']) expect(readContainers(text)).toBeUndefined();
    expect(() => readContainers('<html>')).toThrow();
    expect(all(null, {}, 7, { id: 'a', new: 1, ports: [{}, null, { container: 53, protocol: 'udp' }], pod: {} })).toEqual([
      {
        id: 'a', name: '', label: '', host: '', image: '', state: '', status: '', engine: '', pod: undefined,
        ports: [{ container: 53, protocol: 'udp', address: '', machine: undefined }],
      },
    ]);
    expect(readContainers(lost('there is no engine', 'start it'))?.failure).toMatchObject({ kind: 'failed', message: 'there is no engine', hint: 'start it' });
    expect(readContainers('{"error":{}}')?.failure?.message).toBe('the containers are not known');
    expect(readContainers(lost('log in', '', 'not-logged-in'))?.failure?.kind).toBe('not-logged-in');
  });

  it('never have the same id twice, because VS Code then shows nothing at all', () => {
    expect(all(described('web'), described('web', { state: 'exited' }), described('db')).map((of) => [of.name, of.state])).toEqual([['db', 'running'], ['web', 'exited']]);
  });

  it('bring no text that controls a line, a link or a command', () => {
    const hostile = read('x', { name: 'a\nb\u001b[31m\u202egpj', image: 'i'.repeat(9000), pod: { namespace: 'n\r', name: 'p\u0000' } });
    expect(hostile.name).toBe('a\ufffdb\ufffd[31m\ufffdgpj');
    expect(hostile.image.length).toBe(500);
    expect(hostile.pod).toEqual({ namespace: 'n\ufffd', name: 'p\ufffd' });
    for (const [label, host] of [['web', 'example.org'], ['web', `${HOST}.other`], ['--pid', `${HOST}.--pid`], ['$(id)', `${HOST}.$(id)`], ['', HOST], [7, 7]]) {
      expect(read('web', { label, host })).toMatchObject({ label: '', host: '' });
    }
    expect(read('web')).toMatchObject({ label: 'web', host: `${HOST}.web` });
  });

  it('are sorted: without a pod first, then those that run, then by name', () => {
    const pod = { namespace: 'default', name: 'p' };
    const sorted = all(
      described('z'), described('in-pod', { pod }), described('a', { state: 'exited' }), described('w10'), described('w9'), described('done', { pod, state: 'exited' }),
    );
    expect(sorted.map((of) => of.name)).toEqual(['w9', 'w10', 'z', 'a', 'in-pod', 'done']);
    expect(inOrder([...sorted].reverse())).toEqual(sorted);
  });
});

describe('a container in the tree', () => {
  it('shows its state in the words of the engine, its image and its ports', () => {
    const ports = [
      { container: 80, protocol: 'tcp', address: '0.0.0.0', machine: 8080 }, { container: 80, protocol: 'tcp', address: '::', machine: 8080 },
      { container: 443, protocol: 'tcp', address: '127.0.0.1', machine: 8443 }, { container: 53, protocol: 'udp', address: '', machine: null },
      { container: 5432, protocol: 'tcp', address: '::1', machine: 1 },
    ];
    expect(item('web', { ports })).toMatchObject({
      label: 'web', description: 'running · nginx:alpine · 8080→80, 127.0.0.1:8443→443, 53/udp, [::1]:1→5432', contextValue: 'container.up',
    });
    expect(item('app', { pod: { namespace: 'default', name: 'web-7d4b' } }).description).toBe('running · pod default/web-7d4b · nginx:alpine');
    expect(item('job', { state: 'exited', status: 'Exited (137) 5 minutes ago' }).description).toBe('exited (137) · nginx:alpine');
    expect(item('', { id: 'f'.repeat(64) }).label).toBe('ffffffffffff');
    expect(item('web').accessibilityInformation?.label).toBe('Container web, running · nginx:alpine');
  });

  it('has a tooltip that is no markdown', () => {
    const tooltip = item('web', { name: '[x](command:a) <b>', pod: { namespace: '', name: '*p*' } }).tooltip;
    expect(tooltip).toBe(`[x](command:a) <b>, Up 3 minutes\nImage: nginx:alpine\nPod: *p*\ndocker web-01234567\nssh ${HOST}.web`);
    expect(item('web', { host: '' }).tooltip).toMatch(/It has no host name/);
  });

  it.each([
    ['running', 'Up 3 minutes', 'package', 'charts.green'],
    ['running', 'Up 3 minutes (healthy)', 'package', 'charts.green'],
    ['running', 'Up 3 seconds (health: starting)', 'loading~spin', 'charts.yellow'],
    ['running', 'Up 3 seconds (starting)', 'loading~spin', 'charts.yellow'],
    ['running', 'Up 3 minutes (unhealthy)', 'warning', 'charts.yellow'],
    ['paused', 'Up 3 minutes (Paused)', 'debug-pause', 'charts.yellow'],
    ['restarting', 'Restarting (1) 3 seconds ago', 'loading~spin', 'charts.yellow'],
    ['removing', '', 'loading~spin', 'charts.yellow'],
    ['dead', 'Dead', 'error', 'charts.red'],
    ['exited', 'Exited (1) 3 seconds ago', 'error', 'charts.red'],
    ['EXITED', 'Exited (-1)', 'error', 'charts.red'],
    ['exited', 'Exited (0) 3 seconds ago', 'circle-outline', 'disabledForeground'],
    ['stopped', '', 'circle-outline', 'disabledForeground'],
    ['created', 'Created', 'circle-outline', 'disabledForeground'],
    ['new-state', '', 'question', 'disabledForeground'],
  ])('is drawn by its state: %s, %s', (state, status, icon, color) => {
    expect(look(read('web', { state, status }))).toEqual([icon, color]);
  });

  it('has actions if it runs and has a host name', () => {
    expect(menuOf('container.up', 'inline')).toEqual(['terminal', 'open']);
    expect(menuOf('container.up', '1')).toEqual(['open', 'openNew', 'terminal']);
    expect(menuOf('container.up', '2')).toEqual(['forward', 'copySsh']);
    expect(menuOf('container.up', '3')).toEqual([]);
    expect(menuOf('container.down')).toEqual([]);
    for (const more of [{ state: 'exited' }, { state: 'paused' }, { state: 'created' }, { host: '', label: '' }]) {
      expect(item('web', more).contextValue).toBe('container.down');
    }
  });
});

/** A view on a fake binary that prints these lines of sh for `containers`, and counts its runs. */
function viewed(lines: string, lists: unknown[][] = [[listed()]], then = 'exec sleep 1000') {
  const at = folder();
  const news = lists.map((playgrounds) => `echo '${JSON.stringify({ type: 'playgrounds', playgrounds })}'; sleep 0.3`);
  const runs = `echo $$ > ${at}/pid; echo "$@" >> ${at}/runs`;
  const view = viewOn(binary(program(`[ "$1" = containers ] && { ${runs}; ${lines}; exec sleep 1000; }\n${news.join('\n')}\n${then}`)));
  const { tree, find } = view;
  return {
    ...view,
    runs: (): string[] => (existsSync(`${at}/runs`) ? readFileSync(`${at}/runs`, 'utf8').trim().split('\n') : []),
    alive: (): boolean => existsSync(`/proc/${readFileSync(`${at}/pid`, 'utf8').trim()}`),
    labels: (): unknown[] => tree.getChildren(find('machine')).map((node) => tree.getTreeItem(node).label),
    item: (): TreeItem => tree.getTreeItem(find('machine') as Node),
  };
}

describe('the watch of a machine', () => {
  it('runs while the machine is open on the screen, and only then', async () => {
    const { watch, labels, item, runs, alive, fold, filter, setVisible, end } = viewed(`echo '${line(described('web'), described('db'))}'`);
    await until(() => watch.situation.kind === 'known');
    expect(item().collapsibleState).toBe(1);
    expect(labels()).toEqual(['Show Containers']);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(runs()).toEqual([]);
    fold('machine', false);
    expect(labels()).toEqual(['Looking for containers']);
    await until(() => labels().length === 2);
    expect(labels()).toEqual(['db', 'web']);
    expect(runs()).toEqual([`containers ${HOST} --watch --json`]);
    let count = 1;
    for (const [hide, show] of [
      [() => { fold('machine', true); }, () => { fold('machine', false); }],
      [() => { fold('playground', true); }, () => { fold('playground', false); }],
      [() => { setVisible(false); }, () => { setVisible(true); }],
      [() => { filter.set('of another'); }, () => { filter.set(''); }],
    ] as const) {
      expect(alive()).toBe(true);
      hide();
      await until(() => !alive());
      show();
      await until(() => labels().length === 2 && runs().length === count + 1);
      count += 1;
    }
    end();
    await until(() => !alive());
    expect(runs().length).toBe(5);
  });

  it('does not begin again for a machine that was closed with its playground', async () => {
    const { watch, tree, labels, runs, alive, fold, end } = viewed(`echo '${line(described('web'))}'`);
    await until(() => watch.situation.kind === 'known');
    fold('machine', false);
    await until(() => labels()[0] === 'web');
    const reloaded: unknown[] = [];
    tree.onDidChangeTreeData((nodes) => reloaded.push(nodes?.map((node) => node.kind)));
    fold('playground', true);
    await until(() => !alive());
    fold('playground', false);
    // VS Code asks for the children of those that it shows. "Collapse All" has closed this one.
    expect(reloaded).toEqual([['playground']]);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(runs().length).toBe(1);
    fold('machine', false);
    await until(() => runs().length === 2);
    end();
  });

  it('shows each change, and ignores news of another kind', async () => {
    const go = `${folder()}/go`;
    const { labels, watch, fold, end } = viewed(
      `echo '${line(described('web'))}'; while [ ! -e ${go} ]; do sleep 0.05; done; echo '{"new":1}'; echo '${line(described('web'), described('db'))}'`,
    );
    await until(() => watch.situation.kind === 'known');
    fold('machine', false);
    await until(() => labels()[0] === 'web');
    writeFileSync(go, '');
    await until(() => String(labels()) === 'db,web');
    end();
  });

  it('shows a failure in place of the containers, and what to do', async () => {
    const { tree, find, labels, watch, fold, end } = viewed(`echo '${line(described('web'))}'; sleep 0.2; echo '${lost('there is no engine', 'start it')}'`);
    await until(() => watch.situation.kind === 'known');
    fold('machine', false);
    await until(() => labels()[0] === 'web');
    await until(() => labels()[0] === 'There is no engine.');
    const [note] = tree.getChildren(find('machine')).map((node) => tree.getTreeItem(node));
    expect(note).toMatchObject({ description: 'start it', tooltip: 'There is no engine. Start it.', contextValue: 'note', iconPath: { id: 'warning' } });
    expect(user.asked).toEqual([]);
    end();
  });

  it('is restarted after an unexpected end, but not if the binary is too old', async () => {
    const well = `${folder()}/well`;
    const failing = `echo '${JSON.stringify({ error: { kind: 'network', message: 'no network', hint: '' } })}'; exit 10`;
    const { labels, watch, fold, runs, end } = viewed(`[ -e ${well} ] || { ${failing}; }; echo '${line()}'`);
    await until(() => watch.situation.kind === 'known');
    fold('machine', false);
    await until(() => labels()[0] === 'No network.');
    writeFileSync(well, '');
    await until(() => labels()[0] === 'No containers');
    expect(runs().length).toBe(2);
    end();

    const old = viewed(`echo "error: unrecognized subcommand 'containers'" >&2; exit 2`);
    await until(() => old.watch.situation.kind === 'known');
    old.fold('machine', false);
    await until(() => old.labels()[0] !== 'Looking for containers');
    expect(old.labels()).toEqual(['The installed labctl-ssh-proxy is too old for this: it does not know `containers`.']);
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(old.runs().length).toBe(1);
    old.containers.refresh();
    await until(() => old.runs().length === 2);
    old.end();
  });

  it('waits after a final failure: for Refresh, for the user, for another state, for a login', async () => {
    const final = (kind: string): string => `echo '${lost('no', '', kind)}'; echo '${JSON.stringify({ error: { kind, message: 'no' } })}'; exit 6`;
    const [first] = listed()['machines'] as object[];
    const news = folder();
    const all = viewed(final('refused'), [[listed()]], `while :; do for one in ${news}/*; do [ -e $one ] && cat $one && rm $one; done; sleep 0.05; done`);
    const { watch, labels, runs, fold, setVisible, containers, end } = all;
    let told = 0;
    // Each has a name of its own, because the program reads one and then deletes what has its name.
    const tell = (value: unknown): void => { writeFileSync(`${news}/.new`, `${JSON.stringify(value)}\n`); renameSync(`${news}/.new`, `${news}/${told++}`); };
    const list = (more = {}): unknown => ({ type: 'playgrounds', playgrounds: [listed(more)] });
    const ran = async (count: number): Promise<void> => {
      await until(() => runs().length === count && labels()[0] === 'No.');
      // The pause after a first failure is a second.
      await new Promise((resolve) => setTimeout(resolve, 1300));
      expect(runs().length).toBe(count);
    };
    await until(() => watch.situation.kind === 'known');
    fold('machine', false);
    await ran(1);
    containers.refresh();
    await ran(2);
    fold('machine', true);
    fold('machine', false);
    await ran(3);
    setVisible(false);
    setVisible(true);
    await ran(4);
    tell(list({ title: 'Another title' }));
    await until(() => watch.playgrounds[0]?.title === 'Another title');
    await ran(4);
    tell(list({ machines: [{ ...first, state: 'REBOOTED' }] }));
    await ran(5);
    tell({ type: 'error', kind: 'network', message: 'no network' });
    await until(() => watch.situation.kind === 'failed');
    tell(list({ machines: [{ ...first, state: 'REBOOTED' }] }));
    await until(() => watch.situation.kind === 'known');
    await ran(5);
    tell({ type: 'error', kind: 'not-logged-in', message: 'log in' });
    await until(() => watch.situation.kind === 'failed');
    tell(list({ machines: [{ ...first, state: 'REBOOTED' }] }));
    await ran(6);
    end();
  });

  it.each([
    ['its last news were an error', `echo '${lost('there is no engine')}'; kill -KILL $$`],
    ['a gateway answered', `echo '${JSON.stringify({ error: { kind: 'answer', message: 'the platform answered 502' } })}'; exit 11`],
  ])('begins again after a death, and after a failure that may pass: %s', async (_, lines) => {
    const { watch, runs, fold, end } = viewed(lines);
    await until(() => watch.situation.kind === 'known');
    fold('machine', false);
    await until(() => runs().length === 2);
    end();
  });

  it('does not make the user wait after Refresh for what failed before', async () => {
    const { watch, runs, fold, containers, end } = viewed('exit 1');
    await until(() => watch.situation.kind === 'known');
    fold('machine', false);
    await until(() => runs().length === 2);
    containers.refresh();
    await until(() => runs().length === 3);
    // Without Refresh, the next pause is one of 4 seconds.
    await until(() => runs().length === 4, 3000);
    end();
  });

  it('ends with the playground, and with its machine', async () => {
    const [first] = listed()['machines'] as object[];
    for (const end of [{ state: 'STOPPED' }, { machines: [{ ...first, state: 'STOPPED', ready: false }] }]) {
      const all = viewed(`echo '${line(described('web'))}'`, [[listed()], [listed()], [listed()], [listed(end)]]);
      await until(() => all.watch.situation.kind === 'known');
      all.fold('machine', false);
      await until(() => all.labels()[0] === 'web');
      await until(() => all.labels().length === 0);
      await until(() => !all.alive());
      expect(all.item().collapsibleState).toBe(0);
      all.end();
    }
  });

  it('does not begin for a machine that is expanded for its connection, until the user wants it', async () => {
    const connection = { pid: 7, machine: 'docker-01', client: 'SSH-2.0-OpenSSH_9.2' };
    const { tree, find, watch, labels, item, runs, containers, end } = viewed(
      `echo '${line(described('web'))}'`, [[listed()], [listed({ connections: [connection] })], [listed({ connections: [connection] })], [listed()]],
    );
    await until(() => watch.situation.kind === 'known');
    const { id } = item();
    await until(() => labels().length === 2);
    expect(labels()).toEqual(['OpenSSH 9.2', 'Show Containers']);
    const expanded = item();
    expect(expanded.collapsibleState).toBe(2);
    expect(expanded.id).not.toBe(id);
    expect(runs()).toEqual([]);
    const note = tree.getChildren(find('machine'))[1] as Node;
    expect(tree.getTreeItem(note).command).toMatchObject({ command: 'playgrounds.containers', arguments: [{ kind: 'containers' }] });
    if (note.kind === 'containers') containers.setExpanded(note.playground, note.machine, true);
    await until(() => labels()[1] === 'web');
    // The end of the connection closes nothing that the user has opened.
    await until(() => labels().length === 1);
    expect(item().id).toBe(expanded.id);
    end();
  });
});

describe('the actions on a container', () => {
  const node = (more: Record<string, unknown> = {}, name = 'web'): Node => ({ kind: 'container', playground: one(), machine, container: read(name, more) });

  it('copy its ssh command', async () => {
    const { does } = acting([listed()]);
    await does['playgrounds.copySsh'](node());
    expect(user.clipboard).toBe(`ssh ${HOST}.web`);
    await expect(does['playgrounds.copySsh'](node({ host: '' }))).rejects.toThrow('web has no host name');
  });

  it('open its working folder in an editor, and say once for each image what that means', async () => {
    const { does, runs } = acting([listed()], {}, '[ "$1" = ssh ] && { echo /srv; exit; }');
    await does['playgrounds.open'](node());
    expect(user.asked).toEqual([
      'Open web in an editor? An editor trusts what runs in a container as it trusts any remote: a malicious program there could run ' +
        'commands on your computer. You are asked once for the image nginx:alpine.',
    ]);
    expect([commands.ran, runs()]).toEqual([[], []]);
    user.answers = ['Open'];
    await does['playgrounds.open'](node());
    await does['playgrounds.openNew'](node({}, 'other'));
    expect(user.asked.length).toBe(2);
    expect(commands.ran).toEqual([
      ['vscode.openFolder', `vscode-remote://ssh-remote+${HOST}.web/srv`, { forceReuseWindow: true }],
      ['vscode.openFolder', `vscode-remote://ssh-remote+${HOST}.other/srv`, { forceNewWindow: true }],
    ]);
    expect(runs().slice(0, 3)).toEqual(['config-ssh --yes --json', 'start 0123456789abcdef01234567 --json', `ssh ${HOST}.web pwd`]);
    await does['playgrounds.open'](node({ image: 'redis:7' }));
    expect(user.asked.length).toBe(3);
  });

  it.each(['exit 127', 'echo "not a folder"', 'printf "/a\\n/b\\n"'])('open the root if no shell tells a folder: %s', async (said) => {
    const { does } = acting([listed()], {}, `[ "$1" = ssh ] && { ${said}; exit; }`);
    user.answer = 'Open';
    await does['playgrounds.open'](node());
    expect(commands.ran[0]?.[1]).toBe(`vscode-remote://ssh-remote+${HOST}.web/`);
  });

  it('forward one of its ports, or another', async () => {
    const ports = [{ container: 80, protocol: 'tcp', address: '127.0.0.1', machine: 8080 }, { container: 53, protocol: 'udp', address: '', machine: null }];
    const { does, runs } = acting([listed()]);
    user.answers = ['80'];
    // This binary forwards nothing.
    await expect(does['playgrounds.forward'](node({ ports }))).rejects.toThrow();
    expect(user.offered).toEqual(['80', 'Another port...']);
    expect(runs().at(-1)).toMatch(new RegExp(`^port-forward ${HOST} --in web -L 127\\.0\\.0\\.1:\\d+:localhost:80 --json$`));
    user.answers = ['Another port...', '9000'];
    await expect(does['playgrounds.forward'](node({ ports }))).rejects.toThrow();
    expect(user.asked.slice(-2)).toEqual(['Select a port of web to forward', 'Enter the port of web to forward']);
    expect(runs().at(-1)).toMatch(/ --in web -L 127\.0\.0\.1:\d+:localhost:9000 --json$/);
    user.asked = [];
    await does['playgrounds.forward'](node());
    expect(user.asked).toEqual(['Enter the port of web to forward']);
  });

  it('show the port-forward below the machine', async () => {
    const listening = '{"event":"listening","forward":0,"address":"127.0.0.1:4321"}';
    const it = binary(program(`[ "$1" = port-forward ] && { echo '${listening}'; exec sleep 1000; }\necho '${JSON.stringify([listed()])}'`));
    const view = viewOn(it);
    const work = { signal: new AbortController().signal, report: () => undefined };
    await view.forwards.add(one().id, 'docker-01', 80, work, { host: HOST, label: 'web' });
    const tree = treeOf(it, view.watch, view.forwards);
    const [forward] = tree.getChildren({ kind: 'machine', playground: one(), machine });
    expect(forward && tree.getTreeItem(forward)).toMatchObject({ label: 'localhost:4321', description: 'to port 80 of web' });
    expect(view.forwards.of(one().id, 'docker-01')[0]).toMatchObject({ container: 'web', localPort: 4321 });
    view.end();
  });
});

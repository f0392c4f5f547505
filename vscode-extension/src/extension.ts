// The companion of labctl-ssh-proxy: builds the parts and joins them. The binary knows everything; this only shows it.

import * as vscode from 'vscode';
import { type Subject, actions, guarded } from './actions';
import { playgroundHost } from './authority';
import { Binary } from './binary';
import { COMMANDS, SECTION, SITUATION, VIEW } from './commands';
import { Forwards } from './forwards';
import { prewake, windowAuthority } from './prewake';
import { StatusBar } from './statusbar';
import { type Node, Tree } from './tree';
import { type Disposable, type Situation, Watch } from './watch';
import { condition } from './wire';
import { tell } from './work';

/** Time left is told in minutes. */
const TICK_MS = 30_000;

/** What the tests in a real VS Code look at. */
export interface Api {
  watch: Watch;
  tree: Tree;
  forwards: Forwards;
  /** Enters a window with this authority. */
  enter: (authority: string | undefined) => Promise<void>;
}

/** In a playground's window this takes as long as the playground takes to wake: Remote-SSH waits for it. */
export async function activate(context: vscode.ExtensionContext): Promise<Api> {
  const log = vscode.window.createOutputChannel('Playgrounds', { log: true });
  const say = (line: string): void => {
    log.info(line);
  };
  const setting = <T>(key: string, otherwise: T): T => vscode.workspace.getConfiguration(SECTION).get<T>(key, otherwise);
  const options = (): string[] => (setting<boolean>('local', false) ? ['--local'] : []);
  const binary = new Binary({ configured: () => setting('binary', ''), options, log: say });
  const watch = new Watch(binary, say);
  const forwards = new Forwards(binary, tell);
  const tree = new Tree(watch, forwards);
  context.subscriptions.push(log, { dispose: () => { binary.dispose(); } }, watch, forwards, tree);

  const view = vscode.window.createTreeView<Node>(VIEW, { treeDataProvider: tree, showCollapseAll: true });
  context.subscriptions.push(view, new Looking(view, watch, tree));

  const does = actions({ binary, watch, forwards, log, context, options });
  for (const command of COMMANDS) {
    const run = (subject?: Subject): Promise<void> => does[command](subject);
    context.subscriptions.push(
      vscode.commands.registerCommand(command, (subject?: Subject) => {
        guarded(() => run(subject));
      }),
    );
  }
  context.subscriptions.push(
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration(`${SECTION}.binary`) || change.affectsConfiguration(`${SECTION}.local`)) {
        guarded(() => watch.refresh());
      }
    }),
  );

  const enter = async (authority: string | undefined): Promise<void> => {
    const host = playgroundHost(authority ?? '');
    if (host === undefined) return;
    await prewake(binary, watch, host);
    context.subscriptions.push(new StatusBar(host, watch, (command, id) => does[command](id)));
  };
  await enter(windowAuthority());
  return { watch, tree, forwards, enter };
}

/** Watches as long as the view is seen, and keeps what surrounds the tree: badge, message, welcome. */
class Looking implements Disposable {
  private held: Disposable | undefined;
  private clock: NodeJS.Timeout | undefined;
  private readonly subscriptions: Disposable[];

  constructor(
    private readonly view: vscode.TreeView<Node>,
    private readonly watch: Watch,
    private readonly tree: Tree,
  ) {
    this.subscriptions = [
      view.onDidChangeVisibility(() => {
        this.look();
      }),
      watch.onDidChange(() => {
        this.show();
      }),
    ];
    this.look();
  }

  dispose(): void {
    clearInterval(this.clock);
    this.held?.dispose();
    for (const subscription of this.subscriptions) subscription.dispose();
  }

  private look(): void {
    clearInterval(this.clock);
    if (!this.view.visible) {
      this.held?.dispose();
      this.held = undefined;
      return;
    }
    this.held ??= this.watch.hold();
    this.clock = setInterval(() => {
      this.tree.update();
    }, TICK_MS);
  }

  private show(): void {
    const { situation } = this.watch;
    const running = this.watch.playgrounds.filter((one) => condition(one) === 'up').length;
    this.view.badge = running === 0 ? undefined : { value: running, tooltip: `${running} running` };
    // With playgrounds in the tree there is no welcome: a failure is told above them.
    const failed = situation.kind === 'failed' ? situation.failure : undefined;
    this.view.message = failed && !hasWelcome(situation) ? `${failed.message}. ${failed.hint}` : '';
    void vscode.commands.executeCommand('setContext', SITUATION, situationKey(situation));
  }
}

/** Whether the tree is empty, so that the view shows the welcome of the situation, which needs no message. */
function hasWelcome(situation: Situation): boolean {
  const key = situationKey(situation);
  return key !== 'failed' && situation.kind === 'failed' && situation.playgrounds.length === 0;
}

/** The value of the context key that chooses the welcome. */
export function situationKey(situation: Situation): string {
  if (situation.kind === 'loading') return 'loading';
  if (situation.kind === 'known') return situation.playgrounds.length === 0 ? 'empty' : 'some';
  const { kind } = situation.failure;
  return kind === 'no-binary' || kind === 'old-binary' || kind === 'not-logged-in' ? kind : 'failed';
}

// The view around the tree: its badge, message and welcome. It holds the watch while it is visible, and tells which ports,
// machines and clusters are open.

import * as vscode from 'vscode';
import { SITUATION, STEPS } from './commands';
import type { Containers } from './containers';
import { Filter } from './filter';
import { condition } from './playground';
import type { Pods } from './pods';
import type { Ports } from './ports';
import type { Node, Tree } from './tree';
import type { Disposable, Situation, Watch } from './watch';

/** The interval at which the time left, shown in minutes, is brought up to date. */
const TICK_MS = 30_000;

export class View implements Disposable {
  private held: Disposable | undefined;
  private clock: NodeJS.Timeout | undefined;
  private readonly subscriptions: Disposable[];

  constructor(
    private readonly view: vscode.TreeView<Node>,
    private readonly watch: Watch,
    private readonly tree: Tree,
    private readonly ports: Ports,
    private readonly containers: Containers,
    private readonly pods: Pods,
    private readonly filter = new Filter(),
  ) {
    this.subscriptions = [
      view,
      view.onDidChangeVisibility(() => {
        this.holdWhileVisible();
      }),
      view.onDidExpandElement(({ element }) => {
        this.note(element, true);
      }),
      view.onDidCollapseElement(({ element }) => {
        this.note(element, false);
      }),
      ...[watch, filter].map((one) =>
        one.onDidChange(() => {
          this.foldHidden();
          this.show();
        }),
      ),
    ];
    this.holdWhileVisible();
  }

  dispose(): void {
    this.release();
    this.containers.setVisible(false);
    this.pods.setVisible(false);
    for (const subscription of this.subscriptions) subscription.dispose();
  }

  private note(node: Node, expanded: boolean): void {
    const { playground } = node;
    if (node.kind === 'ports') this.ports.setExpanded(playground.id, expanded);
    if (node.kind === 'machine') this.containers.setExpanded(playground, node.machine, expanded);
    if (node.kind === 'namespace' || node.kind === 'pod') this.tree.setExpanded(node, expanded);
    if (node.kind === 'cluster') this.pods.setExpanded(playground, expanded);
    if (node.kind !== 'playground') return;
    this.ports.setFolded(playground.id, !expanded);
    const watched = [this.containers, this.pods];
    if (!expanded) for (const one of watched) one.setFolded(playground.id, true);
    else if (watched.some((one) => one.isFolded(playground.id))) this.tree.reload(playground.id);
  }

  /** VS Code does not report that the filter has taken lines away. Their scans and watches pause until it asks for them again. */
  private foldHidden(): void {
    const hidden = this.watch.playgrounds.filter((one) => !this.filter.suits(one));
    for (const { id } of hidden) for (const one of [this.ports, this.containers, this.pods]) one.setFolded(id, true);
  }

  private holdWhileVisible(): void {
    this.ports.setVisible(this.view.visible);
    this.containers.setVisible(this.view.visible);
    this.pods.setVisible(this.view.visible);
    if (!this.view.visible) this.release();
    else if (!this.held) this.hold();
  }

  private hold(): void {
    this.held = this.watch.hold();
    this.clock = setInterval(() => {
      this.tree.update();
    }, TICK_MS);
  }

  private release(): void {
    clearInterval(this.clock);
    this.held?.dispose();
    this.held = undefined;
  }

  private show(): void {
    const { situation, playgrounds } = this.watch;
    const running = playgrounds.filter((one) => condition(one) === 'up').length;
    this.view.badge = running === 0 ? undefined : { value: running, tooltip: `${running} ${running === 1 ? 'playground' : 'playgrounds'} running` };
    this.view.message = [message(situation), this.filter.message].filter(Boolean).join(' ');
    void vscode.commands.executeCommand('setContext', SITUATION, situationKey(situation));
    for (const [key, value] of stepsOf(situation)) void vscode.commands.executeCommand('setContext', key, value);
  }
}

/** The message above the tree: the failure, unless the tree is empty and a welcome explains that failure instead. */
function message(situation: Situation): string {
  if (situation.kind !== 'failed') return '';
  const hasWelcome = situation.playgrounds.length === 0 && situationKey(situation) !== 'failed';
  return hasWelcome ? '' : situation.failure.text;
}

/** The value of the context key that selects the welcome. */
function situationKey(situation: Situation): string {
  if (situation.kind === 'loading') return 'loading';
  if (situation.kind === 'known') return situation.playgrounds.length === 0 ? 'empty' : 'some';
  const { kind } = situation.failure;
  return kind === 'no-binary' || kind === 'old-binary' || kind === 'not-logged-in' ? kind : 'failed';
}

/** The steps of the walkthrough that the situation decides, each with its key. A failure that says nothing about a step leaves it. */
function stepsOf(situation: Situation): [key: string, isDone: boolean][] {
  if (situation.kind === 'loading') return [];
  if (situation.kind === 'known') {
    return [[STEPS.hasProgram, true], [STEPS.isLoggedIn, true], [STEPS.hasPlayground, situation.playgrounds.length > 0]];
  }
  const { kind } = situation.failure;
  if (kind === 'no-binary' || kind === 'old-binary') return [[STEPS.hasProgram, false]];
  return kind === 'not-logged-in' ? [[STEPS.hasProgram, true], [STEPS.isLoggedIn, false]] : [];
}

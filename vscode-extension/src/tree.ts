// The view: playgrounds, the tasks that prepare them, their machines, the machines' connections and forwards. Data in the
// nodes, looks in getTreeItem.

import * as vscode from 'vscode';
import { KEEP } from './commands';
import type { Forward, Forwards } from './forwards';
import type { Disposable, Watch } from './watch';
import { type Condition, type Connection, type Machine, type Playground, type Task, type TaskStatus, condition, pendingTasks } from './wire';
import * as words from './words';

interface PlaygroundNode {
  kind: 'playground';
  playground: Playground;
}

export type Node =
  | PlaygroundNode
  | { kind: 'task'; playground: Playground; task: Task }
  | { kind: 'machine'; playground: Playground; machine: Machine }
  | { kind: 'connection'; playground: Playground; machine: Machine; connection: Connection }
  | { kind: 'forward'; playground: Playground; machine: Machine; forward: Forward };

const ICONS: Record<Condition, [icon: string, color: string]> = {
  up: ['vm-running', 'charts.green'],
  starting: ['loading~spin', 'charts.yellow'],
  ending: ['loading~spin', 'charts.orange'],
  down: ['vm-outline', 'disabledForeground'],
  gone: ['error', 'charts.red'],
  unknown: ['question', 'charts.yellow'],
};

const TASK_ICONS: Record<TaskStatus, [icon: string, color: string]> = {
  none: ['circle-outline', 'disabledForeground'],
  created: ['circle-outline', 'disabledForeground'],
  blocked: ['circle-outline', 'disabledForeground'],
  running: ['loading~spin', 'charts.yellow'],
  failed: ['error', 'charts.red'],
  completed: ['pass', 'charts.green'],
  unknown: ['question', 'disabledForeground'],
};

const icon = (id: string, color: string): vscode.ThemeIcon => new vscode.ThemeIcon(id, new vscode.ThemeColor(color));

export class Tree implements vscode.TreeDataProvider<Node>, Disposable {
  private readonly changed = new vscode.EventEmitter<Node[] | undefined>();
  readonly onDidChangeTreeData = this.changed.event;
  private readonly subscriptions: Disposable[];
  /** The playgrounds in the order in which they are shown, by id. */
  private shown = new Map<string, { node: PlaygroundNode; look: string }>();

  constructor(
    private readonly watch: Watch,
    private readonly forwards: Forwards,
  ) {
    const change = (): void => {
      this.update();
    };
    this.subscriptions = [this.changed, watch.onDidChange(change), forwards.onDidChange(change)];
    this.update();
  }

  /**
   * Updates only the playgrounds that look different now, the time left included: while the editor takes in a whole new
   * tree, a click on a line does not say which.
   */
  update(): void {
    const before = this.shown;
    this.shown = new Map();
    const different: Node[] = [];
    for (const playground of this.watch.playgrounds) {
      const known = before.get(playground.id);
      const node = known?.node ?? { kind: 'playground', playground };
      node.playground = playground;
      const look = this.look(playground);
      if (known?.look !== look) different.push(node);
      this.shown.set(playground.id, { node, look });
    }
    const same = String([...before.keys()]) === String([...this.shown.keys()]);
    if (!same) this.changed.fire(undefined);
    else if (different.length > 0) this.changed.fire(different);
  }

  /** Everything that is shown of a playground. */
  private look(playground: Playground): string {
    const forwards = playground.machines.map((machine) => this.forwardsOf({ playground, machine }));
    return JSON.stringify([{ ...playground, endsAt: words.timeLeft(playground.endsAt) }, forwards]);
  }

  getChildren(node?: Node): Node[] {
    if (!node) return [...this.shown.values()].map((one) => one.node);
    const { playground } = node;
    switch (node.kind) {
      case 'playground':
        return [
          ...pendingTasks(playground).map((task): Node => ({ kind: 'task', playground, task })),
          ...playground.machines.map((machine): Node => ({ kind: 'machine', playground, machine })),
        ];
      case 'machine': {
        const { machine } = node;
        return [...connectionsOf(node), ...this.forwardsOf(node)].map((one) =>
          'pid' in one
            ? { kind: 'connection', playground, machine, connection: one }
            : { kind: 'forward', playground, machine, forward: one },
        );
      }
      case 'task':
      case 'connection':
      case 'forward':
        return [];
    }
  }

  getTreeItem(node: Node): vscode.TreeItem {
    switch (node.kind) {
      case 'playground':
        return playgroundItem(node.playground);
      case 'task':
        return taskItem(node.playground, node.task);
      case 'machine':
        return machineItem(node, connectionsOf(node).length + this.forwardsOf(node).length > 0);
      case 'connection':
        return connectionItem(node.connection);
      case 'forward':
        return forwardItem(node.forward);
    }
  }

  dispose(): void {
    for (const subscription of this.subscriptions) subscription.dispose();
  }

  private forwardsOf({ playground, machine }: { playground: Playground; machine: Machine }): Forward[] {
    return this.forwards.of(playground.id, machine.name);
  }
}

function connectionsOf({ playground, machine }: { playground: Playground; machine: Machine }): Connection[] {
  return playground.connections.filter((one) => one.machine === machine.name);
}

function playgroundItem(playground: Playground): vscode.TreeItem {
  const now = condition(playground);
  const { name, title } = playground.template;
  const label = playground.title || title || name || playground.id;
  const item = new vscode.TreeItem(label, vscode.TreeItemCollapsibleState.Collapsed);
  item.id = playground.id;
  const kept = playground.persistent === true ? '.kept' : '';
  item.contextValue = `playground.${now === 'starting' ? 'up.starting' : now}${kept}`;
  item.iconPath = icon(...ICONS[now]);
  const left = now === 'down' || now === 'gone' ? '' : words.timeLeft(playground.endsAt);
  item.description = [name, words.state(playground), left && `${left} left`].filter(Boolean).join(' · ');
  const tooltip = new vscode.MarkdownString();
  tooltip.appendText(`${label}\n${title || name}, ${words.state(playground)}\n`);
  const end = words.end(playground);
  if (end) tooltip.appendText(`It ${end}. Use "Extend" for more time${kept ? '' : `, or "${KEEP}"`}.\n`);
  tooltip.appendMarkdown('\n\n').appendCodeblock(`ssh ${playground.host}`, 'sh');
  item.tooltip = tooltip;
  item.accessibilityInformation = { label: [label, item.description, end].filter(Boolean).join(', ') };
  return item;
}

function taskItem(playground: Playground, task: Task): vscode.TreeItem {
  const item = new vscode.TreeItem(task.name);
  item.id = `${playground.id}/task/${task.name}`;
  item.contextValue = 'task';
  item.description = words.task(task.status);
  item.iconPath = icon(...TASK_ICONS[task.status]);
  const label = `${task.helper ? 'Helper init task' : 'Init task'} ${task.name}`;
  item.tooltip = `${label}: ${item.description}`;
  item.accessibilityInformation = { label: `${label}, ${item.description}` };
  return item;
}

function machineItem({ playground, machine }: { playground: Playground; machine: Machine }, parent: boolean): vscode.TreeItem {
  const { Expanded, None } = vscode.TreeItemCollapsibleState;
  if (!machine.ssh) return closedItem(playground, machine);
  const item = new vscode.TreeItem(machine.name, parent ? Expanded : None);
  // An item keeps the state it had: one that gets its first child is another item, which is open.
  item.id = `${playground.id}/${machine.name}${parent ? '/' : ''}`;
  const now = condition(playground);
  const up = now === 'up' || now === 'starting';
  const booting = up && !machine.ready;
  item.contextValue = `machine.${up ? 'up' : now}`;
  item.description = [machine.user, booting ? 'booting' : machine.state.toLowerCase()].filter(Boolean).join(' · ');
  item.iconPath = machine.ready && up ? icon('server', 'charts.green') : icon(booting ? 'loading~spin' : 'server', 'disabledForeground');
  item.tooltip = `ssh ${machine.host}`;
  return item;
}

/** A machine without SSH access: its context value is in no menu, since every action on a machine needs SSH. */
function closedItem(playground: Playground, machine: Machine): vscode.TreeItem {
  const item = new vscode.TreeItem(machine.name);
  item.id = `${playground.id}/${machine.name}`;
  item.contextValue = 'noSsh';
  item.description = 'no SSH';
  item.iconPath = icon('lock', 'disabledForeground');
  item.tooltip = 'The platform does not allow SSH access to this machine';
  item.accessibilityInformation = { label: `${machine.name}, no SSH access` };
  return item;
}

function connectionItem(connection: Connection): vscode.TreeItem {
  const item = new vscode.TreeItem(words.client(connection.client));
  item.id = `connection/${connection.pid}/${connection.machine}/${connection.since}`;
  item.contextValue = 'connection';
  const connected = connection.phase === 'connected';
  item.iconPath = icon(connected ? 'plug' : 'loading~spin', connected ? 'charts.blue' : 'charts.yellow');
  const figures = connected
    ? [`↓ ${words.size(connection.received)}`, `↑ ${words.size(connection.sent)}`]
    : [connection.phase, connection.message];
  if (connected && connection.roundTripMs !== undefined) figures.push(words.roundTrip(connection.roundTripMs));
  item.description = [connection.user, ...figures].filter(Boolean).join(' · ');
  item.tooltip = [connection.client, `process ${connection.pid}`, connection.message].filter(Boolean).join('\n');
  return item;
}

function forwardItem(forward: Forward): vscode.TreeItem {
  const item = new vscode.TreeItem(`localhost:${forward.localPort ?? '...'}`);
  item.contextValue = 'forward.own';
  item.iconPath = icon(forward.localPort === undefined ? 'loading~spin' : 'link', 'charts.purple');
  const used = forward.sent + forward.received > 0;
  const figures = used ? ` · ${forward.open} open · ↓ ${words.size(forward.received)} · ↑ ${words.size(forward.sent)}` : '';
  item.description = `to port ${forward.remotePort}${figures}`;
  item.tooltip = 'Forwarded as long as this window is open';
  return item;
}

// The nodes of the tree: playgrounds, their init tasks and machines, and the machines' connections and port-forwards.
// `tree/items` renders them.

import * as vscode from 'vscode';
import * as format from './format';
import { type Connection, type Machine, type Playground, type Task, pendingTasks } from './playground';
import type { PortForward, PortForwards } from './portforwards';
import { connectionItem, forwardItem, machineItem, playgroundItem, taskItem } from './tree/items';
import type { Disposable, Watch } from './watch';

interface PlaygroundNode {
  kind: 'playground';
  playground: Playground;
}

interface MachineNode {
  kind: 'machine';
  playground: Playground;
  machine: Machine;
}

export type Node =
  | PlaygroundNode
  | MachineNode
  | { kind: 'task'; playground: Playground; task: Task }
  | { kind: 'connection'; playground: Playground; machine: Machine; connection: Connection }
  | { kind: 'forward'; playground: Playground; machine: Machine; forward: PortForward };

export class Tree implements vscode.TreeDataProvider<Node>, Disposable {
  private readonly changed = new vscode.EventEmitter<Node[] | undefined>();
  readonly onDidChangeTreeData = this.changed.event;
  private readonly subscriptions: Disposable[];
  /** The nodes of the playgrounds by id, in the order of the tree. `look` changes whenever the rendered node would. */
  private shown = new Map<string, { node: PlaygroundNode; look: string }>();

  constructor(
    private readonly watch: Watch,
    private readonly forwards: PortForwards,
  ) {
    const change = (): void => {
      this.update();
    };
    this.subscriptions = [this.changed, watch.onDidChange(change), forwards.onDidChange(change)];
    this.update();
  }

  /**
   * Updates the playgrounds that look different now, including their time left. VS Code loses clicks while it loads a new
   * tree, so the whole tree is replaced only if the order has changed.
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
    const isSameOrder = String([...before.keys()]) === String([...this.shown.keys()]);
    if (!isSameOrder) this.changed.fire(undefined);
    else if (different.length > 0) this.changed.fire(different);
  }

  getChildren(node?: Node): Node[] {
    switch (node?.kind) {
      case undefined:
        return [...this.shown.values()].map((one) => one.node);
      case 'playground':
        return playgroundChildren(node.playground);
      case 'machine':
        return this.machineChildren(node);
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
        return machineItem(node.playground, node.machine, this.machineChildren(node).length > 0);
      case 'connection':
        return connectionItem(node.connection);
      case 'forward':
        return forwardItem(node.forward);
    }
  }

  dispose(): void {
    for (const subscription of this.subscriptions) subscription.dispose();
  }

  private machineChildren({ playground, machine }: MachineNode): Node[] {
    const connections = playground.connections.filter((one) => one.machine === machine.name);
    return [
      ...connections.map((connection): Node => ({ kind: 'connection', playground, machine, connection })),
      ...this.forwards.of(playground.id, machine.name).map((forward): Node => ({ kind: 'forward', playground, machine, forward })),
    ];
  }

  private look(playground: Playground): string {
    const forwards = playground.machines.map((machine) => this.forwards.of(playground.id, machine.name));
    return JSON.stringify([{ ...playground, endsAt: format.timeLeft(playground.endsAt) }, forwards]);
  }
}

function playgroundChildren(playground: Playground): Node[] {
  return [
    ...pendingTasks(playground).map((task): Node => ({ kind: 'task', playground, task })),
    ...playground.machines.map((machine): Node => ({ kind: 'machine', playground, machine })),
  ];
}

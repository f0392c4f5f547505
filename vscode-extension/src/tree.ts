// The nodes of the tree: playgrounds, their tasks, machines and ports, and the machines' connections, port-forwards and containers.
// `tree/items`, `tree/portitems` and `tree/containeritems` render them. The nodes of clusters are in `tree/cluster`.

import * as vscode from 'vscode';
import type { Container, Containers } from './containers';
import { Filter } from './filter';
import * as format from './format';
import { type Connection, type Machine, type Playground, type Task, canHaveContainers, shownTasks } from './playground';
import type { PortForward, PortForwards } from './portforwards';
import type { Pods } from './pods';
import type { Port, Ports, Shell } from './ports';
import { type ClusterNode, ClusterNodes } from './tree/cluster';
import { containerItem, containersItem } from './tree/containeritems';
import { connectionItem, forwardItem, machineItem, playgroundItem, taskItem, tasksItem } from './tree/items';
import { portItem, portsItem, problemOf, scanItem, shellItem } from './tree/portitems';
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

/** A port, and the port-forward to it of this window. */
export interface PortNode {
  kind: 'port';
  playground: Playground;
  port: Port;
  own: PortForward | undefined;
}

export interface ShellNode {
  kind: 'shell';
  playground: Playground;
  shell: Shell;
}

export type Node =
  | PlaygroundNode
  | MachineNode
  | { kind: 'tasks' | 'ports' | 'scan'; playground: Playground }
  | { kind: 'task'; playground: Playground; task: Task }
  | PortNode
  | ShellNode
  | { kind: 'connection'; playground: Playground; machine: Machine; connection: Connection }
  | { kind: 'forward'; playground: Playground; machine: Machine; forward: PortForward }
  | { kind: 'containers'; playground: Playground; machine: Machine }
  | { kind: 'container'; playground: Playground; machine: Machine; container: Container }
  | ClusterNode;

export class Tree implements vscode.TreeDataProvider<Node>, Disposable {
  private readonly changed = new vscode.EventEmitter<Node[] | undefined>();
  readonly onDidChangeTreeData = this.changed.event;
  private readonly subscriptions: Disposable[];
  /** The nodes of the playgrounds by id, in the order of the tree. `look` changes whenever the rendered node would. */
  private shown = new Map<string, { node: PlaygroundNode; look: string }>();
  /** The machines that have been expanded for a connection or a port-forward. */
  private readonly unfolded = new Set<string>();
  private readonly clusters: ClusterNodes;

  constructor(
    private readonly watch: Watch,
    private readonly forwards: PortForwards,
    private readonly ports: Ports,
    private readonly containers: Containers,
    private readonly pods: Pods,
    private readonly filter = new Filter(),
  ) {
    this.clusters = new ClusterNodes(pods, (nodes) => {
      this.changed.fire(nodes);
    });
    const change = (): void => {
      this.update();
    };
    this.subscriptions = [this.changed, ...[watch, forwards, ports, containers, filter].map((one) => one.onDidChange(change)), this.clusters];
    this.subscriptions.push(
      pods.onDidChange((news) => {
        this.clusters.note(news);
        if (!news.pod) change();
      }),
    );
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
    for (const playground of this.watch.playgrounds.filter((one) => this.filter.suits(one))) {
      if (this.containersOf(playground).some((one) => one.pod)) this.pods.find(playground.id);
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

  /** Makes VS Code ask for the children that it shows of a playground. */
  reload(id: string): void {
    const known = this.shown.get(id);
    if (known) this.changed.fire([known.node]);
  }

  getChildren(node?: Node): Node[] {
    switch (node?.kind) {
      case undefined:
        return [...this.shown.values()].map((one) => one.node);
      case 'playground':
        return this.playgroundChildren(node.playground);
      case 'tasks':
        return shownTasks(node.playground).map((task): Node => ({ kind: 'task', playground: node.playground, task }));
      case 'machine':
        this.containers.show(node.playground.id, node.machine.name);
        return [...this.links(node), ...this.containerNodes(node)];
      case 'ports':
        return this.portChildren(node.playground);
      case 'task':
      case 'connection':
      case 'forward':
      case 'scan':
      case 'port':
      case 'shell':
      case 'containers':
      case 'container':
        return [];
      case 'cluster':
      case 'clusterNote':
      case 'namespace':
      case 'pod':
      case 'podContainer':
        return this.clusters.children(node);
    }
  }

  getTreeItem(node: Node): vscode.TreeItem {
    switch (node.kind) {
      case 'playground':
        return playgroundItem(node.playground);
      case 'tasks':
        return tasksItem(node.playground);
      case 'task':
        return taskItem(node.playground, node.task);
      case 'machine':
        return this.machineItem(node);
      case 'connection':
        return connectionItem(node.connection);
      case 'forward':
        return forwardItem(node.forward);
      case 'ports':
        return portsItem(node.playground, this.ports.of(node.playground.id));
      case 'scan':
        return scanItem(node.playground, this.ports.of(node.playground.id));
      case 'port':
        return portItem(node.playground, node.port, node.own);
      case 'shell':
        return shellItem(node.playground, node.shell);
      case 'containers':
        return containersItem(node.playground, node.machine, this.containers.of(node.playground.id, node.machine.name));
      case 'container':
        return containerItem(node.playground, node.machine, node.container);
      case 'cluster':
      case 'clusterNote':
      case 'namespace':
      case 'pod':
      case 'podContainer':
        return this.clusters.item(node);
    }
  }

  /** Notes that the user has expanded or collapsed a node of a cluster. */
  setExpanded(node: ClusterNode, expanded: boolean): void {
    this.clusters.setExpanded(node, expanded);
  }

  dispose(): void {
    for (const subscription of this.subscriptions) subscription.dispose();
  }

  /** VS Code remembers for each id whether the item is expanded. A new id makes the machine expand for its first link. */
  private machineItem(node: MachineNode): vscode.TreeItem {
    const { playground, machine } = node;
    const key = `${playground.id}/${machine.name}`;
    const hasLinks = this.links(node).length > 0;
    if (hasLinks && !this.containers.of(playground.id, machine.name)) this.unfolded.add(key);
    const item = machineItem(playground, machine, hasLinks, canHaveContainers(playground, machine));
    item.id = `${key}${this.unfolded.has(key) ? '/' : ''}`;
    return item;
  }

  private containerNodes({ playground, machine }: MachineNode): Node[] {
    if (!canHaveContainers(playground, machine)) return [];
    const all = (this.containers.of(playground.id, machine.name)?.list ?? []).filter((one) => !one.pod || this.hasLostPods(playground));
    if (all.length === 0) return [{ kind: 'containers', playground, machine }];
    return all.map((container): Node => ({ kind: 'container', playground, machine, container }));
  }

  /** True if a cluster does not tell of its pods, whose containers may be those that show why. */
  private readonly hasLostPods = ({ id }: Playground): boolean => this.pods.of(id)?.failure !== undefined;

  private containersOf({ id, machines }: Playground): Container[] {
    return machines.flatMap((machine) => this.containers.of(id, machine.name)?.list ?? []);
  }

  private playgroundChildren(playground: Playground): Node[] {
    return [
      ...(shownTasks(playground).length > 0 ? [{ kind: 'tasks' as const, playground }] : []),
      ...playground.machines.map((machine): Node => ({ kind: 'machine', playground, machine })),
      ...(this.pods.has(playground) ? [this.clusters.of(playground)] : []),
      ...(playground.state === 'RUNNING' ? [{ kind: 'ports' as const, playground }] : []),
    ];
  }

  /** The connections and port-forwards of a machine. */
  private links({ playground, machine }: MachineNode): Node[] {
    const connections = playground.connections.filter((one) => one.machine === machine.name);
    return [
      ...connections.map((connection): Node => ({ kind: 'connection', playground, machine, connection })),
      ...this.forwards.of(playground.id, machine.name).map((forward): Node => ({ kind: 'forward', playground, machine, forward })),
    ];
  }

  private portChildren(playground: Playground): Node[] {
    this.ports.show(playground.id);
    const scan = this.ports.of(playground.id);
    const ports = (scan.list?.ports ?? []).map((port) => this.portNode(playground, port));
    const shells = (scan.list?.shells ?? []).map((shell): Node => ({ kind: 'shell', playground, shell }));
    const needsWords = problemOf(scan) !== undefined || ports.length + shells.length === 0;
    return [...(needsWords ? [{ kind: 'scan' as const, playground }] : []), ...ports, ...shells];
  }

  private portNode(playground: Playground, port: Port): Node {
    const own = this.forwards.of(playground.id, port.machine).find((one) => one.remotePort === port.number && one.container === '');
    // The scan may be older than the end of a port-forward of this window.
    const forwards = port.forwards.filter(({ pid }) => !this.forwards.hasStarted(pid));
    return { kind: 'port', playground, port: { ...port, forwards }, own };
  }

  private look(playground: Playground): string {
    const forwards = playground.machines.map((machine) => this.forwards.of(playground.id, machine.name));
    const { list, failure } = this.ports.of(playground.id);
    const containers = playground.machines.map((machine) => this.containers.of(playground.id, machine.name));
    const texts = [failure, ...containers.map((one) => one?.failure)].map((one) => one?.text);
    const cluster = [this.pods.has(playground), this.pods.isWanted(playground.id), this.hasLostPods(playground)];
    return JSON.stringify([{ ...playground, endsAt: format.timeLeft(playground.endsAt) }, forwards, list, containers, texts, cluster]);
  }
}

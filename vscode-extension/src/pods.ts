// The pods of clusters, from `pods PLAYGROUND -A --watch --json`.

import type { ContainerPort } from './containers';
import type { Failure } from './failure';
import { readPods } from './json';
import { type Machine, type Playground, canHaveContainers } from './playground';
import { Watched } from './watched';

export const ROLES = ['init', 'sidecar', 'regular', 'ephemeral'] as const;

/** The states of k'exp. */
export const STATES = ['waiting', 'starting', 'not-ready', 'ready', 'terminated-ok', 'terminated-ko', 'unknown'] as const;

/** A container of a pod. The texts are foreign, but without characters that control anything. */
export interface PodContainer {
  name: string;
  role: (typeof ROLES)[number];
  /** The host name for ssh. Empty if its name makes none. */
  host: string;
  image: string;
  state: (typeof STATES)[number];
  /** The state in words. */
  title: string;
  reason: string;
  message: string;
  /** True if it can be entered. */
  running: boolean;
  failing: boolean;
  exitCode: number | undefined;
  restarts: number;
  /** The container that an ephemeral one debugs; empty for none. */
  target: string;
  ports: ContainerPort[];
}

/** A pod. The texts are foreign, too. */
export interface Pod {
  namespace: string;
  name: string;
  /** The host name for ssh, which leads into its default container. Empty if its name makes none. */
  host: string;
  node: string;
  /** That which makes it, such as "Deployment web"; empty for none. */
  owner: string;
  /** The word of `kubectl get pods`. */
  status: string;
  message: string;
  failing: boolean;
  ready: number;
  total: number;
  restarts: number;
  /** Its start, in ms since 1970. */
  since: number | undefined;
  containers: PodContainer[];
}

export interface KubeNode {
  name: string;
  ready: boolean;
}

/** News of a cluster: all of it, a part, or the reason why it is not known. */
export interface ClusterNews {
  nodes?: KubeNode[];
  pods?: Pod[];
  pod?: Pod;
  gone?: Pick<Pod, 'namespace' | 'name'>;
  failure?: Failure;
}

/** A cluster, as far as it is known. */
export interface Cluster {
  /** False until the first answer. */
  isKnown: boolean;
  nodes: KubeNode[];
  /** The pods by namespace and name. */
  namespaces: Map<string, Map<string, Pod>>;
  /** The reason why it may be out of date. */
  failure: Failure | undefined;
}

/** The playground whose cluster is another now, and the pod that alone has changed; undefined if all may have. */
export interface Change {
  playground: string;
  pod?: Pick<Pod, 'namespace' | 'name'> | undefined;
}

export class Pods extends Watched<Cluster, Change> {
  /** The playgrounds that turned out to have a cluster. */
  private readonly found = new Set<string>();
  /** Those whose user says so. */
  private readonly wanted = new Set<string>();

  /** The cluster of a playground; undefined if it is not open. */
  of(id: string): Cluster | undefined {
    return this.entries.get(id)?.found;
  }

  /** True if a playground is known to have a cluster that can be asked, by its names, its containers or its user. */
  has(of: Playground): boolean {
    return canBeAsked(of) && (looksLikeCluster(of) || this.found.has(of.id) || this.wanted.has(of.id));
  }

  /** Notes that a playground has containers of pods. */
  find(id: string): void {
    this.found.add(id);
  }

  /** Notes that the user wants to see the cluster of a playground. */
  want(id: string): void {
    this.wanted.add(id);
    this.tell({ playground: id });
  }

  isWanted(id: string): boolean {
    return this.wanted.has(id);
  }

  setExpanded(playground: Playground, expanded: boolean): void {
    if (expanded) {
      this.show(playground);
    } else {
      this.forget(playground.id);
      this.tell({ playground: playground.id });
    }
  }

  /** Notes that the tree shows what is below a cluster. VS Code reports no expansion if it restores one. */
  show(playground: Playground): void {
    const { id } = playground;
    if (this.entries.has(id)) this.unfold(id);
    else for (const [, state] of this.states(playground)) this.open(id, id, ['pods', id, '-A'], nothing(), state);
  }

  protected override take(playground: string, cluster: Cluster, line: string): boolean {
    const news = readPods(line);
    if (!news) return false;
    if (news.failure) {
      this.fail(playground, cluster, news.failure);
      return false;
    }
    become(cluster, news);
    this.tell({ playground, pod: news.pod ?? news.gone });
    return true;
  }

  protected override fail(playground: string, cluster: Cluster, failure: Failure): void {
    cluster.failure = failure;
    this.tell({ playground });
  }

  /** The init tasks may be those that make the cluster. */
  protected override states(of: Playground): [key: string, state: string][] {
    return canBeAsked(of) ? [[of.id, `${kubeMachine(of)?.state ?? ''} ${of.initTasks?.done ?? 0}`]] : [];
  }
}

const nothing = (): Cluster => ({ isKnown: false, nodes: [], namespaces: new Map(), failure: undefined });

function become(cluster: Cluster, { nodes, pods, pod, gone }: ClusterNews): void {
  if (nodes) cluster.nodes = nodes;
  if (pods) {
    cluster.namespaces.clear();
    cluster.isKnown = true;
    cluster.failure = undefined;
  }
  for (const one of pods ?? (pod ? [pod] : [])) {
    const all = cluster.namespaces.get(one.namespace) ?? new Map<string, Pod>();
    cluster.namespaces.set(one.namespace, all.set(one.name, one));
  }
  if (!gone) return;
  const all = cluster.namespaces.get(gone.namespace);
  all?.delete(gone.name);
  if (all?.size === 0) cluster.namespaces.delete(gone.namespace);
}

/** The machine with the kubeconfig, as the binary chooses it. */
const kubeMachine = ({ machines }: Playground): Machine | undefined => machines.find((one) => one.name === 'cplane-01') ?? machines[0];

function canBeAsked(of: Playground): boolean {
  const machine = kubeMachine(of);
  return machine !== undefined && canHaveContainers(of, machine);
}

/**
 * True if the names of a playground say that it has a cluster. To ask each would need a connection to its machine, and a line
 * that leads nowhere would be below all others.
 */
export const looksLikeCluster = ({ template, machines }: Playground): boolean =>
  [template.name, ...machines.map((one) => one.name)].some((name) => /\b(cplane|control-?plane|k3s|k8s|kube\w*)\b/.test(name));

/** The host name's part behind `.pod.`, as the option --pod takes it. */
export const podOption = (host: string): string => host.split('.').slice(2).join('/');

/** True for a container that can be entered. */
export const canEnter = ({ running, host }: PodContainer): boolean => running && host !== '';

// The nodes of clusters. VS Code updates the lines of a node that it knows, so each node stays the same object. A cluster can have
// a thousand pods, so only what looks different is updated.

import type * as vscode from 'vscode';
import type { Playground } from '../playground';
import { type Change, type Cluster, type Pod, type PodContainer, type Pods, ROLES } from '../pods';
import { clusterItem, clusterNoteItem, describeCluster, namespaceItem, podContainerItem, podItem } from './clusteritems';

export interface PodNode {
  kind: 'pod';
  playground: Playground;
  pod: Pod;
}

export interface PodContainerNode {
  kind: 'podContainer';
  playground: Playground;
  pod: Pod;
  podContainer: PodContainer;
}

interface NamespaceNode {
  kind: 'namespace';
  playground: Playground;
  namespace: string;
}

export type ClusterNode = { kind: 'cluster' | 'clusterNote'; playground: Playground } | NamespaceNode | PodNode | PodContainerNode;

/** The time in which changes are collected: a rollout is many of them. */
const TOGETHER_MS = 100;

/** The nodes of a namespace. `look` changes whenever its lines, apart from those of single pods, would. */
interface Space {
  node: NamespaceNode;
  pods: Map<string, PodNode>;
  look: string;
}

/** The nodes of a cluster. */
interface Shown {
  node: ClusterNode;
  spaces: Map<string, Space>;
  look: string;
}

export class ClusterNodes {
  private readonly all = new Map<string, Shown>();
  /** The namespaces and pods that the user has expanded. VS Code forgets that once a cluster is closed. */
  private readonly open = new Set<string>();
  /** The clusters that have changed, and what has. */
  private readonly changed = new Map<string, Change['pod'][]>();
  private timer: NodeJS.Timeout | undefined;

  /** `update` makes VS Code update nodes and what it shows below them. */
  constructor(
    private readonly pods: Pods,
    private readonly update: (nodes: ClusterNode[]) => void,
  ) {}

  /** The node of a playground's cluster. */
  of(playground: Playground): ClusterNode {
    const known = this.all.get(playground.id);
    if (known) {
      known.node.playground = playground;
      return known.node;
    }
    const node: ClusterNode = { kind: 'cluster', playground };
    this.all.set(playground.id, { node, spaces: new Map(), look: lookOf(undefined) });
    return node;
  }

  /** Notes that a cluster has changed. */
  note({ playground, pod }: Change): void {
    this.changed.set(playground, [...(this.changed.get(playground) ?? []), pod]);
    this.timer ??= setTimeout(() => {
      this.flush();
    }, TOGETHER_MS);
  }

  /** Notes that the user has expanded or collapsed a node. */
  setExpanded(node: ClusterNode, expanded: boolean): void {
    if (expanded) this.open.add(keyOf(node));
    else this.open.delete(keyOf(node));
  }

  dispose(): void {
    clearTimeout(this.timer);
  }

  children(node: ClusterNode): ClusterNode[] {
    const { playground } = node;
    if (node.kind === 'cluster') this.pods.show(playground);
    const cluster = this.pods.of(playground.id);
    if (!cluster) return [];
    switch (node.kind) {
      case 'cluster':
        return this.clusterChildren(playground, cluster);
      case 'namespace':
        return this.podNodes(playground, node.namespace, cluster);
      case 'pod':
        return inOrder(node.pod.containers).map((podContainer) => ({ kind: 'podContainer', playground, pod: node.pod, podContainer }));
      case 'clusterNote':
      case 'podContainer':
        return [];
    }
  }

  item(node: ClusterNode): vscode.TreeItem {
    const { playground } = node;
    const cluster = this.pods.of(playground.id);
    switch (node.kind) {
      case 'cluster':
        return clusterItem(playground, cluster, this.pods.isWanted(playground.id));
      case 'clusterNote':
        return clusterNoteItem(playground, cluster ?? NOTHING);
      case 'namespace':
        return namespaceItem(playground, node.namespace, podsOf(cluster, node.namespace), this.open.has(keyOf(node)));
      case 'pod':
        return podItem(playground, node.pod, (cluster?.nodes.length ?? 0) > 1, this.open.has(keyOf(node)));
      case 'podContainer':
        return podContainerItem(playground, node.pod, node.podContainer);
    }
  }

  private clusterChildren(playground: Playground, cluster: Cluster): ClusterNode[] {
    const shown = this.all.get(playground.id);
    const needsWords = cluster.failure !== undefined || cluster.namespaces.size === 0;
    const spaces = namesInOrder(cluster).map((namespace) => {
      const space = shown?.spaces.get(namespace) ?? { node: { kind: 'namespace', playground, namespace }, pods: new Map(), look: '' };
      shown?.spaces.set(namespace, space);
      return space.node;
    });
    return [...(needsWords ? [{ kind: 'clusterNote' as const, playground }] : []), ...spaces];
  }

  private podNodes(playground: Playground, namespace: string, cluster: Cluster): ClusterNode[] {
    const space = this.all.get(playground.id)?.spaces.get(namespace);
    const nodes = podsOf(cluster, namespace).sort(failingFirst).map((pod): PodNode => {
      const node = space?.pods.get(pod.name) ?? { kind: 'pod', playground, pod };
      node.pod = pod;
      return node;
    });
    if (space) {
      space.pods = new Map(nodes.map((node) => [node.pod.name, node]));
      space.look = spaceLook(cluster, namespace);
    }
    return nodes;
  }

  /** Updates what looks different now, and as little as possible. */
  private flush(): void {
    this.timer = undefined;
    const different: ClusterNode[] = [];
    for (const [id, changed] of this.changed) {
      const shown = this.all.get(id);
      if (shown) different.push(...differentIn(shown, this.pods.of(id), changed));
    }
    this.changed.clear();
    if (different.length > 0) this.update(different);
  }
}

/** A key of a node that the user can expand. */
function keyOf(node: ClusterNode): string {
  const names = node.kind === 'namespace' ? [node.namespace] : 'pod' in node ? [node.pod.namespace, node.pod.name] : [];
  return [node.playground.id, ...names].join('/');
}

const NOTHING: Cluster = { isKnown: false, nodes: [], namespaces: new Map(), failure: undefined };

function differentIn(shown: Shown, cluster: Cluster | undefined, changed: Change['pod'][]): ClusterNode[] {
  const look = lookOf(cluster);
  const isDifferent = look !== shown.look || changed.includes(undefined);
  shown.look = look;
  for (const name of shown.spaces.keys()) if (!cluster?.namespaces.has(name)) shown.spaces.delete(name);
  const spaces = new Set<Space>();
  const nodes = new Set<PodNode>();
  for (const [name, space] of shown.spaces) {
    const after = cluster ? spaceLook(cluster, name) : '';
    if (after !== space.look) spaces.add(space);
    space.look = after;
  }
  for (const one of changed) {
    const space = one && shown.spaces.get(one.namespace);
    const pod = one && cluster?.namespaces.get(one.namespace)?.get(one.name);
    const node = one && space?.pods.get(one.name);
    if (!space || !pod || !node) continue;
    node.pod = pod;
    if (!spaces.has(space)) nodes.add(node);
  }
  return isDifferent ? [shown.node] : [...[...spaces].map((space) => space.node), ...nodes];
}

/** The line of a cluster, and those of its namespaces. */
function lookOf(cluster: Cluster | undefined): string {
  if (!cluster) return '';
  const spaces = namesInOrder(cluster).map((name) => [name, failingOf(cluster, name), cluster.namespaces.get(name)?.size]);
  return JSON.stringify([describeCluster(cluster), cluster.failure?.text, cluster.nodes.length > 1, spaces]);
}

/** The names of pods, and which of them come first. */
const spaceLook = (cluster: Cluster, namespace: string): string => podsOf(cluster, namespace).map((pod) => `${pod.name} ${pod.failing}`).join('\n');

const podsOf = (cluster: Cluster | undefined, namespace: string): Pod[] => [...(cluster?.namespaces.get(namespace)?.values() ?? [])];

const failingOf = (cluster: Cluster, namespace: string): number => podsOf(cluster, namespace).filter((one) => one.failing).length;

/** Compares names, in which numbers count as such. */
const collator = new Intl.Collator('en', { numeric: true });

const failingFirst = (a: Pod, b: Pod): number => Number(b.failing) - Number(a.failing) || collator.compare(a.name, b.name);

/** Those with a failing pod first, then `default`, where the user's own pods are. */
function namesInOrder(cluster: Cluster): string[] {
  const ranks = new Map([...cluster.namespaces.keys()].map((name) => [name, failingOf(cluster, name) > 0 ? 0 : name === 'default' ? 1 : 2]));
  const rank = (name: string): number => ranks.get(name) ?? 0;
  return [...ranks.keys()].sort((a, b) => rank(a) - rank(b) || collator.compare(a, b));
}

/** The regular ones first, because a pod is for those. */
function inOrder(all: PodContainer[]): PodContainer[] {
  const rank = ({ role }: PodContainer): number => (role === 'regular' ? -1 : ROLES.indexOf(role));
  return [...all].sort((a, b) => rank(a) - rank(b));
}

// The tree items of a cluster: namespaces, pods and containers. What the cluster tells is foreign text, so the tooltips are plain
// text, and no markdown.

import * as vscode from 'vscode';
import { sentence } from '../failure';
import * as format from '../format';
import type { Playground } from '../playground';
import { type Cluster, type Pod, type PodContainer, canEnter } from '../pods';
import { icon, joined } from './looks';

const { Collapsed, Expanded, None } = vscode.TreeItemCollapsibleState;

/** `isWanted` expands it, because the user has asked for it. Another id makes VS Code forget that it was collapsed. */
export function clusterItem(playground: Playground, cluster: Cluster | undefined, isWanted: boolean): vscode.TreeItem {
  const item = new vscode.TreeItem('Cluster', isWanted ? Expanded : Collapsed);
  item.id = `${playground.id}//cluster${isWanted ? '/' : ''}`;
  item.contextValue = 'cluster';
  item.iconPath = new vscode.ThemeIcon('server-environment');
  item.description = describeCluster(cluster);
  item.tooltip = 'The pods of the cluster, watched while they are shown here';
  return item;
}

/** What the line of a cluster says: "3 nodes · 41 pods · 1 failing". */
export function describeCluster(cluster: Cluster | undefined): string {
  if (!cluster?.isKnown) return '';
  const { nodes, namespaces, failure } = cluster;
  const unready = nodes.filter((one) => !one.ready).map((one) => one.name).join(', ');
  const pods = [...namespaces.values()].flatMap((one) => [...one.values()]);
  return joined([nodes.length > 0 && format.count(nodes.length, 'node'), unready && `${unready} not ready`, describePods(pods), failure && 'not up to date'], ' · ');
}

/** "12 pods · 1 failing". */
export function describePods(pods: Pod[]): string {
  const failing = pods.filter((one) => one.failing).length;
  return joined([format.count(pods.length, 'pod'), failing > 0 && `${failing} failing`], ' · ');
}

/** The item in place of the pods, or above those that are not up to date. */
export function clusterNoteItem(playground: Playground, { isKnown, failure }: Cluster): vscode.TreeItem {
  const item = new vscode.TreeItem(failure ? sentence(failure.message) : isKnown ? 'No pods' : 'Looking for pods');
  item.id = `${playground.id}//cluster/note`;
  item.contextValue = 'note';
  item.description = failure?.hint ?? '';
  item.tooltip = failure?.text;
  if (failure) item.iconPath = icon('warning', 'charts.yellow');
  else item.iconPath = isKnown ? icon('circle-slash', 'disabledForeground') : icon('loading~spin', 'charts.yellow');
  return item;
}

export function namespaceItem(playground: Playground, name: string, pods: Pod[], isOpen: boolean): vscode.TreeItem {
  const item = new vscode.TreeItem(name, isOpen ? Expanded : Collapsed);
  const isFailing = pods.some((one) => one.failing);
  item.id = `${playground.id}//namespace/${name}`;
  item.contextValue = 'namespace';
  item.iconPath = isFailing ? icon('symbol-namespace', 'charts.red') : new vscode.ThemeIcon('symbol-namespace');
  item.description = describePods(pods);
  item.accessibilityInformation = { label: `Namespace ${name}, ${item.description}` };
  return item;
}

/** `hasNodes` is true if the cluster has several, so that a pod's is worth a word. */
export function podItem(playground: Playground, pod: Pod, hasNodes: boolean, isOpen: boolean): vscode.TreeItem {
  const item = new vscode.TreeItem(pod.name, pod.containers.length === 0 ? None : isOpen ? Expanded : Collapsed);
  const ready = `${pod.ready}/${pod.total} ready`;
  const state = isRunning(pod) ? ready : pod.status;
  const restarts = pod.restarts > 0 && format.count(pod.restarts, 'restart');
  item.id = `${playground.id}//pod/${pod.namespace}/${pod.name}`;
  item.contextValue = pod.host === '' ? 'pod' : pod.containers.some(canEnter) ? 'pod.up' : 'pod.down';
  item.iconPath = icon(...podLook(pod));
  item.description = joined([state, restarts, hasNodes && pod.node, format.age(pod.since)], ' · ');
  const message = pod.message && sentence(pod.message);
  item.tooltip = joined([`${pod.namespace}/${pod.name}: ${pod.status}`, message, ready, pod.node && `Node: ${pod.node}`, pod.owner, wayTo(pod.host)], '\n');
  item.accessibilityInformation = { label: `Pod ${pod.name}, ${item.description}` };
  return item;
}

const isRunning = ({ status }: Pod): boolean => status === 'Running' || status === 'NotReady';

/** Green is ready, yellow not yet or not now, red failed, grey done. */
export function podLook(pod: Pod): [icon: string, color: string] {
  if (pod.failing) return ['error', 'charts.red'];
  if (pod.status === 'Completed' || pod.status === 'Succeeded') return ['check', 'disabledForeground'];
  if (isRunning(pod)) return ['layers', pod.ready === pod.total ? 'charts.green' : 'charts.yellow'];
  return pod.status === 'Unknown' || pod.status === '' ? ['question', 'disabledForeground'] : ['loading~spin', 'charts.yellow'];
}

export function podContainerItem(playground: Playground, pod: Pod, container: PodContainer): vscode.TreeItem {
  const { name, role, image, host, restarts } = container;
  const item = new vscode.TreeItem(name);
  item.id = `${playground.id}//pod/${pod.namespace}/${pod.name}/${name}`;
  item.contextValue = host === '' ? 'podContainer' : `podContainer.${canEnter(container) ? 'up' : 'down'}.${role}`;
  item.iconPath = icon(...podContainerLook(container));
  item.description = joined([roleOf(container), stateOf(container), restarts > 0 && format.count(restarts, 'restart'), image], ' · ');
  const ports = container.ports.map((one) => `${one.container}/${one.protocol}`);
  item.tooltip = joined([titleOf(container), `Image: ${image}`, ports.length > 0 && `Ports: ${ports.join(', ')}`, wayTo(host)], '\n');
  item.accessibilityInformation = { label: `Container ${name} of pod ${pod.name}, ${item.description}` };
  return item;
}

const wayTo = (host: string): string => (host === '' ? 'It has no host name, because its name makes none.' : `ssh ${host}`);

/** What is not usual about its part in the pod. */
function roleOf({ role, target }: PodContainer): string {
  if (role === 'regular') return '';
  return role === 'ephemeral' && target !== '' ? `ephemeral, debugs ${target}` : role;
}

/** The state in a word or two. One that no probe watches only runs. */
function stateOf({ role, state, reason, exitCode }: PodContainer): string {
  const code = exitCode === undefined ? '' : ` (${exitCode})`;
  switch (state) {
    case 'ready':
      return role === 'init' || role === 'ephemeral' ? 'running' : 'ready';
    case 'not-ready':
      return 'not ready';
    case 'waiting':
      return reason || 'waiting';
    case 'terminated-ok':
      return `done${code}`;
    case 'terminated-ko':
      return `${reason === '' || reason === 'Error' ? 'failed' : reason}${code}`;
    case 'starting':
    case 'unknown':
      return state;
  }
}

/** The sentence of k'exp. */
export function titleOf({ name, role, title, reason, message }: PodContainer): string {
  const why = joined([reason, message], ' - ');
  return joined([`${name}${role === 'regular' ? '' : ` (${role})`}: ${title}`, why && `(${why})`], ' ');
}

const LOOKS: Record<PodContainer['state'], [icon: string, color: string]> = {
  'waiting': ['loading~spin', 'charts.yellow'],
  'starting': ['loading~spin', 'charts.yellow'],
  'not-ready': ['warning', 'charts.yellow'],
  'ready': ['package', 'charts.green'],
  'terminated-ok': ['check', 'disabledForeground'],
  'terminated-ko': ['error', 'charts.red'],
  'unknown': ['question', 'disabledForeground'],
};

/** As {@link podLook}. One that waits in vain has failed. An ephemeral one is told by its icon, and is blue while it runs. */
export function podContainerLook({ role, state, failing }: PodContainer): [icon: string, color: string] {
  const [symbol, color] = LOOKS[failing ? 'terminated-ko' : state];
  if (role !== 'ephemeral') return [symbol, color];
  return ['debug-alt', state === 'ready' ? 'charts.blue' : color];
}

// The target of an action: the playground or machine that it was called on, or that the user selects.

import * as vscode from 'vscode';
import type { ContainerPort } from '../containers';
import { Failure } from '../failure';
import * as format from '../format';
import type { Pod, PodContainer } from '../pods';
import { type Machine, type Playground, condition, sshHost, sshMachines } from '../playground';
import type { Services } from '../services';
import type { Node } from '../tree';
import type { PodContainerNode, PodNode } from '../tree/cluster';

/** The subject of a command: a node of the tree, the id of a playground, or undefined from the command palette. */
export type Subject = Node | string | undefined;

export interface Target {
  playground: Playground;
  /** The machine, if the command was called on one. */
  machine: Machine | undefined;
  /** The container on that machine, if the command was called on one. */
  container?: Inner | undefined;
}

/** A container, or a pod in place of its default one. */
export interface Inner {
  name: string;
  /** Its name in port-forwards. */
  label: string;
  host: string;
  image: string;
  ports: ContainerPort[];
}

/** A predicate that selects the playgrounds offered for an action. */
export type Suits = (playground: Playground) => boolean;

export const isAny: Suits = () => true;
export const isThere: Suits = (playground) => condition(playground) !== 'gone';
export const isDown: Suits = (playground) => condition(playground) === 'down';
export const isUp: Suits = (playground) => ['up', 'starting', 'unknown'].includes(condition(playground));

/**
 * Finds the target of an action. Without a subject the user selects one of the playgrounds that suit, from a list titled
 * "Select a playground to" and the purpose. Resolves to undefined if there is none or the user cancels.
 */
export async function target(services: Services, subject: Subject, suits: Suits, purpose: string): Promise<Target | undefined> {
  const { watch } = services;
  if (typeof subject === 'object') return targetOf(subject, watch.playgrounds);
  const all = watch.situation.kind === 'known' ? watch.playgrounds : await watch.fetch();
  const playground = subject === undefined ? await select(all.filter(suits), purpose) : all.find((one) => one.id === subject);
  return playground && { playground, machine: undefined };
}

/** Finds the target of an action that needs SSH. Throws if the platform does not allow SSH access to it. */
export async function sshTarget(services: Services, subject: Subject, suits: Suits, purpose: string): Promise<Target | undefined> {
  const found = await target(services, subject, (one) => suits(one) && allowsSsh(one), purpose);
  if (found?.machine && !found.machine.ssh) throw noSsh(`machine ${found.machine.name}`);
  if (found && !found.machine && !allowsSsh(found.playground)) throw noSsh(format.title(found.playground));
  if (found?.container?.host === '') throw new Failure('failed', `${found.container.name} has no host name`);
  return found;
}

/** Finds the machine of a target that needs SSH. The user selects it if there are several. */
export const machineOf = (of: Target): Promise<Machine | undefined> => selectMachine(of, sshMachines(of.playground));

/** Finds the machine of a target. The user selects it if there are several. */
export const anyMachineOf = (of: Target): Promise<Machine | undefined> => selectMachine(of, of.playground.machines);

async function selectMachine({ machine }: Target, machines: Machine[]): Promise<Machine | undefined> {
  if (machine || machines.length <= 1) return machine ?? machines[0];
  const items = machines.map((one) => ({ label: one.name, description: one.user, machine: one }));
  return (await vscode.window.showQuickPick(items, { placeHolder: 'Select a machine' }))?.machine;
}

/** The host name of a target: that of its container or its machine, else that of its playground, which leads to the default machine. */
export const hostOf = ({ playground, machine, container }: Target): string => container?.host ?? sshHost(playground, machine);

/** The name of a target for the user. */
export const nameOf = ({ playground, container }: Target): string => container?.name ?? format.title(playground);

/** The target of a node. The node may hold an older version of its playground, so the newest one is taken. */
function targetOf(node: Node, newest: Playground[]): Target {
  const playground = newest.find((one) => one.id === node.playground.id) ?? node.playground;
  if (node.kind === 'pod' || node.kind === 'podContainer') {
    const machine = playground.machines.find((one) => one.name === node.pod.node) ?? sshMachines(playground)[0];
    return { playground, machine, container: innerOf(node) };
  }
  return { playground, machine: 'machine' in node ? node.machine : undefined, container: 'container' in node ? node.container : undefined };
}

/** What an action enters: a container, or the default one of a pod, all of whose containers share their ports. */
function innerOf(node: PodNode | PodContainerNode): Inner {
  const { pod } = node;
  if (node.kind === 'pod') return { name: pod.name, label: pod.name, host: pod.host, image: '', ports: pod.containers.flatMap((one) => one.ports) };
  const { host, image, ports } = node.podContainer;
  const name = nameIn(pod, node.podContainer);
  return { name, label: name, host, image, ports };
}

/** The name of a container of a pod for the user. */
export const nameIn = (pod: Pod, { name }: PodContainer): string => `${pod.name}/${name}`;

export const isOfPod = (subject: Subject): subject is PodNode | PodContainerNode =>
  typeof subject === 'object' && (subject.kind === 'pod' || subject.kind === 'podContainer');

/** The node of a container: the subject, or one of a pod that suits. The user selects it if there are several. */
export async function containerOf(subject: PodNode | PodContainerNode, purpose: string, suits: (one: PodContainer) => boolean): Promise<PodContainerNode | undefined> {
  if (subject.kind === 'podContainer') return subject;
  const { playground, pod } = subject;
  const items = pod.containers.filter(suits).map((one) => ({ label: one.name, description: one.role === 'regular' ? one.image : one.role, one }));
  const chosen = items.length > 1 ? await vscode.window.showQuickPick(items, { placeHolder: `Select a container of ${pod.name} to ${purpose}` }) : items[0];
  return chosen && { kind: 'podContainer', playground, pod, podContainer: chosen.one };
}

async function select(playgrounds: Playground[], purpose: string): Promise<Playground | undefined> {
  if (playgrounds.length === 0) {
    void vscode.window.showInformationMessage(`There is no playground to ${purpose}.`);
    return undefined;
  }
  const items = playgrounds.map((playground) => ({
    label: format.title(playground),
    description: `${playground.template.name} · ${format.state(playground)}`,
    detail: playground.host,
    playground,
  }));
  const options = { placeHolder: `Select a playground to ${purpose}`, matchOnDescription: true, matchOnDetail: true };
  return (await vscode.window.showQuickPick(items, options))?.playground;
}

/** True if SSH access is possible. The machines of a new playground are not known yet, so it counts as possible. */
function allowsSsh(playground: Playground): boolean {
  return playground.machines.length === 0 || sshMachines(playground).length > 0;
}

const noSsh = (subject: string): Failure => new Failure('failed', `the platform does not allow SSH access to ${subject}`);

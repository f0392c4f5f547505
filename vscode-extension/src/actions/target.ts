// The target of an action: the playground, and perhaps the machine, that it was called on or that the user selects.

import * as vscode from 'vscode';
import { Failure } from '../failure';
import * as format from '../format';
import { type Machine, type Playground, condition, sshMachines } from '../playground';
import type { Services } from '../services';
import type { Node } from '../tree';

/** The subject of a command: a node of the view, the id of a playground, or nothing from the command palette. */
export type Subject = Node | string | undefined;

export interface Target {
  playground: Playground;
  /** The machine, if the command was called on one. */
  machine: Machine | undefined;
}

/** Decides whether a playground is offered for an action. */
export type Suits = (playground: Playground) => boolean;

export const isAny: Suits = () => true;
export const isThere: Suits = (playground) => condition(playground) !== 'gone';
export const isDown: Suits = (playground) => condition(playground) === 'down';
export const isUp: Suits = (playground) => ['up', 'starting', 'unknown'].includes(condition(playground));

/** Finds the target of an action. Resolves to undefined if there is none. */
export async function target(services: Services, subject: Subject, suits: Suits): Promise<Target | undefined> {
  const { watch } = services;
  if (typeof subject === 'object') return targetOf(subject, watch.playgrounds);
  const all = watch.situation.kind === 'known' ? watch.playgrounds : await watch.fetch();
  const playground = subject === undefined ? await select(all.filter(suits)) : all.find((one) => one.id === subject);
  return playground && { playground, machine: undefined };
}

/** The same for an action that connects by SSH. Throws if the platform does not allow that. */
export async function sshTarget(services: Services, subject: Subject, suits: Suits): Promise<Target | undefined> {
  const found = await target(services, subject, (one) => suits(one) && allowsSsh(one));
  if (found?.machine && !found.machine.ssh) throw noSsh(`machine ${found.machine.name}`);
  if (found && !found.machine && !allowsSsh(found.playground)) throw noSsh(format.title(found.playground));
  return found;
}

/** The machine of a target, which the user selects if there are several. */
export async function machineOf({ playground, machine }: Target): Promise<Machine | undefined> {
  const machines = sshMachines(playground);
  if (machine || machines.length <= 1) return machine ?? machines[0];
  const items = machines.map((one) => ({ label: one.name, description: one.user, machine: one }));
  return (await vscode.window.showQuickPick(items, { placeHolder: 'Which machine?' }))?.machine;
}

/** The host name of a target: its machine's, else its playground's, which means the default machine. */
export const hostOf = ({ playground, machine }: Target): string => machine?.host ?? playground.host;

/** The target of a node, with the newest version of its playground, because the node may have an older one. */
function targetOf(node: Node, newest: Playground[]): Target {
  const playground = newest.find((one) => one.id === node.playground.id) ?? node.playground;
  return { playground, machine: 'machine' in node ? node.machine : undefined };
}

async function select(playgrounds: Playground[]): Promise<Playground | undefined> {
  if (playgrounds.length === 0) {
    void vscode.window.showInformationMessage('There is no playground for this.');
    return undefined;
  }
  const items = playgrounds.map((playground) => ({
    label: format.title(playground),
    description: `${playground.template.name} · ${format.state(playground)}`,
    detail: playground.host,
    playground,
  }));
  const options = { placeHolder: 'Which playground?', matchOnDescription: true, matchOnDetail: true };
  return (await vscode.window.showQuickPick(items, options))?.playground;
}

/** A playground whose machines are not known yet is not ruled out. */
function allowsSsh(playground: Playground): boolean {
  return playground.machines.length === 0 || sshMachines(playground).length > 0;
}

const noSsh = (subject: string): Failure => new Failure('failed', `the platform does not allow SSH access to ${subject}`);

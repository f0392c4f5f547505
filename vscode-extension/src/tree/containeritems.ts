// The tree items of containers. What the engine tells is foreign text, so the tooltip is plain text, and no markdown.

import * as vscode from 'vscode';
import { type Container, type ContainerPort, type Found, canBeEntered, podName } from '../containers';
import { sentence } from '../failure';
import type { Machine, Playground } from '../playground';
import { icon, joined } from './looks';

export function containerItem(playground: Playground, machine: Machine, container: Container): vscode.TreeItem {
  const label = container.name || container.id.slice(0, 12);
  const item = new vscode.TreeItem(label);
  const pod = container.pod && `pod ${podName(container.pod)}`;
  const description = joined([stateOf(container), pod, container.image, portsOf(container)], ' · ');
  item.id = `${playground.id}/${machine.name}/container/${container.id}`;
  item.contextValue = canBeEntered(container) ? 'container.up' : 'container.down';
  item.iconPath = icon(...look(container));
  item.description = description;
  item.tooltip = tooltip(container);
  item.accessibilityInformation = { label: joined([`Container ${label}`, description], ', ') };
  return item;
}

/** The exit code, which the engines put into the status: "Exited (137) 5 minutes ago". */
const exitCode = ({ status }: Container): number => Number(/^exited \((-?\d+)\)/i.exec(status)?.[1] ?? 0);

/** The state in the engine's words, and the exit code of a failure. */
const stateOf = (of: Container): string => (isOver(of) && exitCode(of) !== 0 ? `${of.state} (${exitCode(of)})` : of.state);

const isOver = ({ state }: Container): boolean => state === 'exited' || state === 'stopped';

/** Green is ready, yellow not yet or not now, red failed, grey done or not started. */
export function look(of: Container): [icon: string, color: string] {
  if (isOver(of)) return exitCode(of) === 0 ? ['circle-outline', 'disabledForeground'] : ['error', 'charts.red'];
  switch (of.state) {
    case 'running':
      if (/\((?:health: )?starting\)/.test(of.status)) return ['loading~spin', 'charts.yellow'];
      return /\(unhealthy\)/.test(of.status) ? ['warning', 'charts.yellow'] : ['package', 'charts.green'];
    case 'restarting':
    case 'removing':
    case 'stopping':
    case 'pausing':
      return ['loading~spin', 'charts.yellow'];
    case 'paused':
      return ['debug-pause', 'charts.yellow'];
    case 'created':
    case 'configured':
    case 'initialized':
      return ['circle-outline', 'disabledForeground'];
    case 'dead':
      return ['error', 'charts.red'];
    default:
      return ['question', 'disabledForeground'];
  }
}

/** The places where the ports are published, or else their numbers inside. An engine lists the same port once for each family of addresses. */
const portsOf = ({ ports }: Container): string => joined([...new Set(ports.map(portOf))], ', ');

function portOf({ container, protocol, address, machine }: ContainerPort): string {
  const inside = protocol === 'tcp' || protocol === '' ? String(container) : `${container}/${protocol}`;
  if (machine === undefined) return inside;
  const isAnywhere = ['', '0.0.0.0', '::'].includes(address);
  return `${isAnywhere ? '' : `${address.includes(':') ? `[${address}]` : address}:`}${machine}→${inside}`;
}

function tooltip(of: Container): string {
  const pod = of.pod && `Pod: ${podName(of.pod)}`;
  const way = of.host === '' ? 'It has no host name, because its name makes none.' : `ssh ${of.host}`;
  return joined([joined([of.name, of.status || of.state], ', '), `Image: ${of.image}`, pod, `${of.engine} ${of.id.slice(0, 12)}`.trim(), way], '\n');
}

/** The item in place of the containers. */
export function containersItem(playground: Playground, machine: Machine, found: Found | undefined): vscode.TreeItem {
  const { failure } = found ?? {};
  const none = found?.list?.length ? 'Only containers of pods, which are in the cluster' : 'No containers';
  const item = new vscode.TreeItem(failure ? sentence(failure.message) : !found ? 'Show Containers' : found.list ? none : 'Looking for containers');
  item.id = `${playground.id}/${machine.name}/containers`;
  item.contextValue = 'note';
  if (failure) {
    item.iconPath = icon('warning', 'charts.yellow');
    item.description = failure.hint;
    item.tooltip = failure.text;
  } else if (!found) {
    item.iconPath = new vscode.ThemeIcon('package');
    item.command = { command: 'playgrounds.containers', title: '', arguments: [{ kind: 'containers', playground, machine }] };
  } else {
    item.iconPath = found.list ? icon('circle-slash', 'disabledForeground') : icon('loading~spin', 'charts.yellow');
  }
  return item;
}

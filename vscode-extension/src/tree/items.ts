// The tree items: labels, icons and tooltips of the nodes.

import * as vscode from 'vscode';
import { MAKE_PERSISTENT } from '../commands';
import * as format from '../format';
import {
  type Condition, type Connection, type Machine, type Playground, type Task, type TaskStatus, condition, isOff, readableHost, shownTasks,
} from '../playground';
import type { PortForward } from '../portforwards';
import { icon, joined } from './looks';

const CONDITION_ICONS: Record<Condition, [icon: string, color: string]> = {
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

export function playgroundItem(playground: Playground): vscode.TreeItem {
  const now = condition(playground);
  const { name, title } = playground.template;
  const label = playground.title || title || name || playground.id;
  const state = format.state(playground);
  const isOver = now === 'down' || now === 'gone';
  const left = isOver ? '' : format.timeLeft(playground.endsAt);
  const description = joined([playground.learning?.kind ?? name, state, !isOver && format.solved(playground), left && `${left} left`], ' · ');
  const item = new vscode.TreeItem(label, vscode.TreeItemCollapsibleState.Collapsed);
  item.id = playground.id;
  item.contextValue = `playground.${now === 'starting' ? 'up.starting' : now}${playground.persistent === true ? '.persistent' : ''}`;
  item.iconPath = icon(...CONDITION_ICONS[now]);
  item.description = description;
  item.tooltip = playgroundTooltip(playground, `${label}\n${title || name}, ${state}\n`);
  item.accessibilityInformation = { label: joined([label, description, format.end(playground)], ', ') };
  return item;
}

function playgroundTooltip(playground: Playground, heading: string): vscode.MarkdownString {
  const tooltip = new vscode.MarkdownString().appendText(heading);
  const end = format.end(playground);
  const keep = playground.persistent === true ? '' : `, or "${MAKE_PERSISTENT}"`;
  if (end) tooltip.appendText(`It ${end}. Use "Extend" for more time${keep}.\n`);
  return tooltip.appendMarkdown('\n\n').appendCodeblock(`ssh ${readableHost(playground, undefined)}`, 'sh');
}

/** The item above the tasks. */
export function tasksItem(playground: Playground): vscode.TreeItem {
  const { Collapsed, Expanded } = vscode.TreeItemCollapsibleState;
  const tasks = shownTasks(playground);
  const isDone = tasks.every((one) => one.status === 'completed');
  const item = new vscode.TreeItem('Tasks', isDone ? Collapsed : Expanded);
  item.id = `${playground.id}//tasks`;
  item.contextValue = 'tasks';
  item.description = format.progress(tasks);
  item.iconPath = isDone ? icon('pass-filled', 'charts.green') : new vscode.ThemeIcon('checklist');
  return item;
}

export function taskItem(playground: Playground, task: Task): vscode.TreeItem {
  const kind = task.init ? (task.helper ? 'Helper init task' : 'Init task') : 'Task';
  const label = `${kind} ${task.name}`;
  const status = format.task(task);
  const item = new vscode.TreeItem(task.name);
  item.id = `${playground.id}/task/${task.name}`;
  item.contextValue = 'task';
  item.description = status;
  item.iconPath = task.status === 'running' && !task.init ? icon('circle-large-outline', 'charts.yellow') : icon(...TASK_ICONS[task.status]);
  item.tooltip = `${label}: ${status}`;
  item.accessibilityInformation = { label: `${label}, ${status}` };
  return item;
}

/** A machine with a connection or a port-forward is expanded by itself, one with containers by the user. Its id is the tree's. */
export function machineItem(playground: Playground, machine: Machine, hasLinks: boolean, canHaveContainers: boolean): vscode.TreeItem {
  return machine.ssh ? sshMachineItem(playground, machine, hasLinks, canHaveContainers) : noSshMachineItem(machine);
}

function sshMachineItem(playground: Playground, machine: Machine, hasLinks: boolean, canHaveContainers: boolean): vscode.TreeItem {
  const { Collapsed, Expanded, None } = vscode.TreeItemCollapsibleState;
  const now = condition(playground);
  const up = now === 'up' || now === 'starting';
  const off = isOff(machine);
  const booting = up && !machine.ready && !off;
  const item = new vscode.TreeItem(machine.name, hasLinks ? Expanded : canHaveContainers ? Collapsed : None);
  item.contextValue = `machine.${up ? (off ? 'off' : 'up') : now}`;
  item.description = joined([machine.user, booting ? format.booting(machine) : machine.state.toLowerCase()], ' · ');
  item.iconPath = machine.ready && up ? icon('server', 'charts.green') : icon(booting ? 'loading~spin' : 'server', 'disabledForeground');
  item.tooltip = `ssh ${readableHost(playground, machine)}`;
  return item;
}

/** A machine without SSH access. Its context value is in no menu, because every action on a machine needs SSH. */
function noSshMachineItem(machine: Machine): vscode.TreeItem {
  const item = new vscode.TreeItem(machine.name);
  item.contextValue = 'noSsh';
  item.description = 'no SSH';
  item.iconPath = icon('lock', 'disabledForeground');
  item.tooltip = 'The platform does not allow SSH access to this machine';
  item.accessibilityInformation = { label: `${machine.name}, no SSH access` };
  return item;
}

export function connectionItem(connection: Connection): vscode.TreeItem {
  const connected = connection.phase === 'connected';
  const trip = connection.roundTripMs === undefined ? '' : format.roundTrip(connection.roundTripMs);
  const figures = connected
    ? [`↓ ${format.size(connection.received)}`, `↑ ${format.size(connection.sent)}`, trip]
    : [format.away(connection) || connection.phase, connection.message];
  const item = new vscode.TreeItem(format.client(connection.client));
  item.id = `connection/${connection.pid}/${connection.machine}/${connection.since}`;
  item.contextValue = 'connection';
  item.iconPath = icon(connected ? 'plug' : 'loading~spin', connected ? 'charts.blue' : 'charts.yellow');
  item.description = joined([format.inside(connection.container), connection.user, ...figures], ' · ');
  item.tooltip = joined([connection.client, `process ${connection.pid}`, format.resumed(connection.resumed), connection.message], '\n');
  return item;
}

export function forwardItem(forward: PortForward): vscode.TreeItem {
  const used = forward.sent + forward.received > 0;
  const figures = used ? [`${forward.open} open`, `↓ ${format.size(forward.received)}`, `↑ ${format.size(forward.sent)}`] : [];
  const item = new vscode.TreeItem(`localhost:${forward.localPort ?? '...'}`);
  item.contextValue = 'forward.own';
  item.iconPath = icon(forward.localPort === undefined ? 'loading~spin' : 'link', 'charts.purple');
  item.description = joined([`to port ${forward.remotePort}${forward.container && ` of ${forward.container}`}`, ...figures], ' · ');
  item.tooltip = 'Forwarded while this window is open';
  return item;
}

// The tree items of ports and shells.

import * as vscode from 'vscode';
import { sentence } from '../failure';
import { sshMachines, type Playground } from '../playground';
import type { PortForward } from '../portforwards';
import type { Port, Scan, Shell } from '../ports';
import { icon, joined } from './looks';

export function portsItem(playground: Playground, { list, failure }: Scan): vscode.TreeItem {
  const item = new vscode.TreeItem('Ports', vscode.TreeItemCollapsibleState.Collapsed);
  item.id = `${playground.id}//ports`;
  item.contextValue = 'ports';
  item.iconPath = new vscode.ThemeIcon('radio-tower');
  item.description = joined([list && count(list), failure ? 'not up to date' : list?.problems.length && 'not complete'], ' · ');
  item.tooltip = 'The ports that listen on the machines, scanned while they are shown here';
  return item;
}

function count({ ports, shells }: NonNullable<Scan['list']>): string {
  const exposed = ports.filter((one) => one.exposures.length > 0).length + shells.length;
  return joined([`${ports.filter((one) => one.listening).length} listening`, exposed > 0 && `${exposed} exposed`], ', ');
}

/** `own` is the port-forward to it of this window. */
export function portItem(playground: Playground, port: Port, own: PortForward | undefined): vscode.TreeItem {
  const item = new vscode.TreeItem(String(port.number));
  const isAlone = playground.machines.length === 1;
  item.id = `${playground.id}//port/${port.machine}/${port.number}`;
  item.contextValue = contextValue(playground, port, own);
  item.description = joined([isAlone ? '' : port.machine, ...facts(port), ...ways(port, own)], ' · ');
  item.iconPath = icon(isWeb(port) ? 'globe' : 'circuit-board', color(port, own));
  item.tooltip = tooltip(port, own);
  item.accessibilityInformation = { label: joined([`Port ${port.number} of ${port.machine}`, ...facts(port), ...ways(port, own)], ', ') };
  return item;
}

/** `port`, and then one word each: can a browser open it, does this computer forward it, does the platform serve it. */
function contextValue(playground: Playground, port: Port, own: PortForward | undefined): string {
  const allowsSsh = sshMachines(playground).some((one) => one.name === port.machine);
  const forwarded = port.forwards.length > 0 ? 'elsewhere' : allowsSsh ? 'free' : 'closed';
  return ['port', isWeb(port) ? 'web' : 'raw', own ? 'own' : forwarded, port.exposures.length > 0 ? 'exposed' : 'hidden'].join('.');
}

/** True if a browser can open it. The platform serves HTTP only. */
const isWeb = (port: Port): boolean => port.protocol === 'http' || port.protocol === 'https' || port.exposures.length > 0;

function facts(port: Port): string[] {
  if (port.listening === false) return ['not listening'];
  return [port.protocol ?? '', port.loopbackOnly ? 'loopback only' : ''].filter(Boolean);
}

function ways(port: Port, own: PortForward | undefined): string[] {
  const local = own?.localPort === undefined ? port.forwards[0]?.local : `localhost:${own.localPort}`;
  const exposed = port.exposures.some((one) => one.access === 'public') ? 'public' : 'exposed';
  return [local === undefined ? '' : `at ${local}`, port.exposures.length > 0 ? exposed : ''].filter(Boolean);
}

function color(port: Port, own: PortForward | undefined): string {
  if (port.exposures.some((one) => one.access === 'public')) return 'charts.yellow';
  if (port.exposures.length > 0) return 'charts.green';
  if (own || port.forwards.length > 0) return 'charts.purple';
  return port.listening === false ? 'disabledForeground' : 'foreground';
}

function tooltip(port: Port, own: PortForward | undefined): string {
  const lines = [`Port ${port.number} of ${port.machine}`];
  if (port.loopbackOnly) lines.push('It listens on the loopback interface only. To expose it, let its server listen on all interfaces (0.0.0.0).');
  for (const { access, url } of port.exposures) lines.push(`Exposed (${access}): ${url}`);
  if (own?.localPort !== undefined) lines.push(`Forwarded by this window: localhost:${own.localPort}`);
  for (const { local, pid } of port.forwards) lines.push(`Forwarded by process ${pid}: ${local}`);
  for (const local of port.saved) lines.push(`Saved port-forward: ${local}`);
  return lines.join('\n');
}

export function shellItem(playground: Playground, shell: Shell): vscode.TreeItem {
  const item = new vscode.TreeItem(`Web terminal of ${shell.user || 'root'}`);
  item.id = `${playground.id}//shell/${shell.id}`;
  item.contextValue = 'shell';
  item.description = joined([playground.machines.length === 1 ? '' : shell.machine, shell.access], ' · ');
  item.iconPath = icon('terminal', 'charts.green');
  item.tooltip = shell.url;
  return item;
}

/** The item in place of a list of ports, or above one that is not up to date. */
export function scanItem(playground: Playground, { list, failure }: Scan): vscode.TreeItem {
  const problem = problemOf({ list, failure });
  const item = new vscode.TreeItem(problem ?? (list ? 'No port is listening or exposed' : 'Scanning the ports'));
  item.id = `${playground.id}//scan`;
  item.contextValue = 'note';
  if (problem !== undefined) item.iconPath = icon('warning', 'charts.yellow');
  else item.iconPath = list ? icon('circle-slash', 'disabledForeground') : icon('loading~spin', 'charts.yellow');
  item.tooltip = problem;
  return item;
}

/** The reason why the list of ports is not up to date, or not complete. */
export function problemOf({ list, failure }: Scan): string | undefined {
  if (failure) return failure.text;
  return list && list.problems.length > 0 ? list.problems.map(sentence).join(' ') : undefined;
}

// Fake binaries, and playgrounds.

import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as path from 'node:path';
import type * as vscode from 'vscode';
import { afterAll } from 'vitest';
import manifest from '../../package.json';
import { ACTIONS, type Subject } from '../../src/actions';
import { Binary, type World } from '../../src/binary';
import { COMMANDS, type Command } from '../../src/commands';
import { Containers } from '../../src/containers';
import { Documents } from '../../src/documents';
import { Filter } from '../../src/filter';
import { Pods } from '../../src/pods';
import { PortForwards } from '../../src/portforwards';
import { Ports } from '../../src/ports';
import { Watch } from '../../src/watch';
import { readPlayground } from '../../src/json';
import type { Playground } from '../../src/playground';
import type { Services } from '../../src/services';
import { type Node, Tree } from '../../src/tree';
import { View } from '../../src/view';
import { EventEmitter } from './vscode';

const folders: string[] = [];

/** Makes a folder that is removed after the tests. */
export function folder(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'playgrounds-'));
  folders.push(made);
  return made;
}

afterAll(() => {
  for (const one of folders.splice(0)) rmSync(one, { recursive: true, force: true });
});

/** Writes a fake binary, which prints its version or else runs these lines of sh. */
export function program(lines: string, version = '9.9.9', into = folder()): string {
  const file = path.join(into, 'labctl-ssh-proxy');
  writeFileSync(file, `#!/bin/sh\n[ "$1" = --version ] && { echo labctl-ssh-proxy ${version}; exit; }\n${lines}\n`);
  chmodSync(file, 0o755);
  return file;
}

export function binary(configured: string, more: Partial<World> = {}): Binary {
  return new Binary({ configured: () => configured, options: () => [], log: () => undefined, ...more });
}

/** The tree on a fake binary. */
export const treeOf = (it: Binary, watch: Watch, forwards = new PortForwards(it, () => undefined)): Tree =>
  new Tree(watch, forwards, new Ports(it, watch), new Containers(it, watch, () => undefined), new Pods(it, watch, () => undefined));

/** The view on a fake binary, and the hands that expand its nodes. */
export function viewOn(it: Binary) {
  const watch = new Watch(it, () => undefined);
  const forwards = new PortForwards(it, () => undefined);
  const ports = new Ports(it, watch);
  const containers = new Containers(it, watch, () => undefined);
  const pods = new Pods(it, watch, () => undefined);
  const filter = new Filter();
  const tree = new Tree(watch, forwards, ports, containers, pods, filter);
  const [visibility, expansion, collapse] = [new EventEmitter(), new EventEmitter<{ element: Node }>(), new EventEmitter<{ element: Node }>()];
  const real = {
    visible: true, dispose: () => undefined,
    onDidChangeVisibility: visibility.event, onDidExpandElement: expansion.event, onDidCollapseElement: collapse.event,
  };
  const view = new View(real as unknown as vscode.TreeView<Node>, watch, tree, ports, containers, pods, filter);
  /** Finds the first node of a kind, of the first playground or below it. */
  const find = (kind: Node['kind']): Node | undefined => [...tree.getChildren(), ...tree.getChildren(tree.getChildren()[0])].find((node) => node.kind === kind);
  return {
    it, watch, forwards, ports, containers, pods, tree, filter, find,
    setVisible: (visible: boolean) => { real.visible = visible; visibility.fire(undefined); },
    fold: (kind: Node['kind'], folded: boolean) => {
      const element = find(kind);
      if (element) (folded ? collapse : expansion).fire({ element });
    },
    end: () => { view.dispose(); forwards.dispose(); ports.dispose(); containers.dispose(); pods.dispose(); watch.dispose(); it.dispose(); },
  };
}

/** A playground as `list --json` prints it. */
export function listed(more: Record<string, unknown> = {}): Record<string, unknown> {
  const id = '0123456789abcdef01234567';
  const host = `playground-${id}`;
  return {
    id,
    title: 'Compose trial',
    state: 'RUNNING',
    playground: { name: 'docker', title: 'Docker', owner: '' },
    machines: [{ name: 'docker-01', host: `${host}.docker-01`, state: 'RUNNING', ready: true, users: [{ name: 'laborant', default: true }] }],
    createdAt: '2026-11-22T15:40:00Z',
    // The middle of a minute, because the time left is shown in minutes.
    expiresIn: 3930,
    pageUrl: 'https://labs.iximiuz.com/p/1',
    host,
    connections: [],
    ...more,
  };
}

export const one = (more: Record<string, unknown> = {}, now = Date.now()): Playground => readPlayground(listed(more), now);

/** The commands in the menu of a tree item with this context value, of the groups that begin with `group`. */
export function menuOf(value: string | undefined, group = ''): string[] {
  const suits = (when: string): boolean => {
    const regex = /viewItem =~ \/(.*)\/$/.exec(when)?.[1];
    return regex === undefined ? when.endsWith(`viewItem == ${value ?? ''}`) : new RegExp(regex).test(value ?? '');
  };
  const items = manifest.contributes.menus['view/item/context'].filter((item) => item.group.startsWith(group) && suits(item.when));
  return items.map(({ command }) => command.replace('playgrounds.', ''));
}

type Acting = Pick<Services, 'binary' | 'watch' | 'ports' | 'pods'> & { does: Record<Command, (subject?: Subject) => Promise<void>>; runs: () => string[]; logged: string[]; services: Services };

/**
 * The actions with a fake binary that lists these playgrounds, starts the first, and prints these answers to other commands.
 * It runs the lines of `also` first.
 */
export function acting(playgrounds: unknown[], answers: Record<string, unknown> = {}, also = ''): Acting {
  const at = folder();
  const all = { list: playgrounds, start: playgrounds[0], ...answers };
  for (const [command, answer] of Object.entries(all)) writeFileSync(path.join(at, command), JSON.stringify(answer));
  const it = binary(program(`echo "$@" >> ${at}/runs; ${also || ':'}; [ -e ${at}/$1 ] && cat ${at}/$1; exit 0`));
  const watch = new Watch(it, () => undefined);
  const stored = new Map<string, unknown>();
  const globalState = { get: (key: string) => stored.get(key), update: (key: string, value: unknown) => Promise.resolve(void stored.set(key, value)) };
  const extension = { id: 'ada.labctl-ssh-proxy', packageJSON: manifest };
  const context = { globalState, extension } as unknown as vscode.ExtensionContext;
  const logged: string[] = [];
  const log = { info: (line: string) => logged.push(line), show: () => undefined } as unknown as vscode.LogOutputChannel;
  const forwards = new PortForwards(it, () => undefined);
  const ports = new Ports(it, watch);
  const containers = new Containers(it, watch, () => undefined);
  const pods = new Pods(it, watch, () => undefined);
  const services: Services = { binary: it, watch, forwards, ports, containers, pods, documents: new Documents(it), filter: new Filter(), log, context };
  const does = Object.fromEntries(COMMANDS.map((command) => [command, (subject?: Subject) => ACTIONS[command](services, subject)])) as Acting['does'];
  const runs = (): string[] => (existsSync(`${at}/runs`) ? readFileSync(`${at}/runs`, 'utf8').trim().split('\n') : []);
  return { binary: it, watch, ports, pods, does, runs, logged, services };
}

export async function until(look: () => boolean, ms = 10_000): Promise<void> {
  const limit = Date.now() + ms;
  while (!look()) {
    if (Date.now() > limit) throw new Error('never');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// Tests inside the extension host. `run()` runs the suite that the file `suite` names, in the world that the test has prepared.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:http';
import { chmodSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import * as vscode from 'vscode';
import { COMMANDS } from '../../src/commands';
import { readFailure } from '../../src/failure';
import { readLink, writeLink } from '../../src/link';
import { CONNECT_TIMEOUT } from '../../src/remotesettings';
import type { Api } from '../../src/extension';
import { condition } from '../../src/playground';

const BINARY = process.env['TEST_BINARY'] ?? '';
const HOME = process.env['HOME'] ?? '';

interface Listed {
  id: string;
  title: string;
  state: string;
  host: string;
}

const cli = (...args: string[]): string => execFileSync(BINARY, ['--local', ...args], { encoding: 'utf8' });
const list = (): Listed[] => JSON.parse(cli('list', '--json')) as Listed[];

async function until(what: string, look: () => boolean, ms = 10_000): Promise<number> {
  const began = Date.now();
  while (!look()) {
    if (Date.now() - began > ms) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return Date.now() - began;
}

async function activate(): Promise<Api> {
  // Its publisher is undefined_publisher as long as there is none.
  const extension = vscode.extensions.all.find((one) => one.id.endsWith('.labctl-ssh-proxy')) as vscode.Extension<Api> | undefined;
  assert.ok(extension, 'it is installed');
  return extension.activate();
}

async function useBinary(file: string | undefined): Promise<void> {
  await vscode.workspace.getConfiguration('playgrounds').update('binary', file, vscode.ConfigurationTarget.Global);
}

/** Writes a fake binary, which prints its version or else runs these lines of sh. */
function fake(name: string, lines: string): string {
  const file = path.join(HOME, name);
  writeFileSync(file, `#!/bin/sh\n[ "$1" = --version ] && { echo labctl-ssh-proxy 9.9.9; exit; }\n${lines}\n`);
  chmodSync(file, 0o755);
  return file;
}

const titles = (api: Api): string[] =>
  api.tree.getChildren().map((node) => {
    const { label } = api.tree.getTreeItem(node);
    return typeof label === 'string' ? label : '';
  });

const failure = (api: Api): string => (api.watch.situation.kind === 'failed' ? api.watch.situation.failure.kind : '');

/** VS Code decodes a link once, and the extension not again. */
function checkLinks(): void {
  const link = { playground: 'k3s', path: '/root/my notes+1', repo: 'https://github.com/ada/notes.git' };
  const { path: at, query } = vscode.Uri.parse(writeLink(vscode.env.uriScheme, 'ada.labctl-ssh-proxy', link));
  assert.deepEqual(readLink(at, query), { ...link, isId: false });
  const twice = vscode.Uri.parse('vscode://ada.labctl-ssh-proxy/open?playground=k3s&path=/a/%252e%252e/b');
  assert.throws(() => readLink(twice.path, twice.query), /its path has characters/);
}

/** The tree, the commands, a port-forward, the settings, and binaries that misbehave. */
async function plain(): Promise<void> {
  checkLinks();
  const api = await activate();
  const known = await vscode.commands.getCommands(true);
  for (const command of COMMANDS) assert.ok(known.includes(command), command);

  await vscode.commands.executeCommand('playgrounds.list.focus');
  await until('the tree is what list is', () => api.watch.situation.kind === 'known');
  assert.deepEqual(titles(api), list().map((one) => one.title));

  // The parser of a real binary names a command that it does not know. An older one says the same of a new command.
  const unknown = spawnSync(BINARY, ['no-such-command', '--json'], { encoding: 'utf8' });
  const said = readFailure({ lastLine: unknown.stdout.trim(), stderr: unknown.stderr, code: unknown.status, signal: null });
  assert.equal(said.kind, 'old-binary', said.message);

  // A stop by another process shows in the tree.
  const [first] = list();
  assert.ok(first);
  const began = Date.now();
  cli('stop', first.id);
  const own = Date.now() - began;
  const shown = (): boolean => api.watch.playgrounds.some((one) => one.id === first.id && condition(one) === 'down');
  const took = await until('the stop shows', shown, 2000);
  console.log(`the stop took ${own} ms, and showed ${took} ms later`);

  // Stop and start by command.
  const other = list().find((one) => one.state === 'RUNNING');
  assert.ok(other);
  await vscode.commands.executeCommand('playgrounds.stop', other.id);
  await until('it is stopped', () => list().find((one) => one.id === other.id)?.state === 'STOPPED');
  await vscode.commands.executeCommand('playgrounds.wake', other.id);
  await until('it runs', () => list().find((one) => one.id === other.id)?.state === 'RUNNING');
  await vscode.commands.executeCommand('playgrounds.copySsh', other.id);

  console.log('a port-forward to an HTTP server');
  const server = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  const [playground] = api.watch.playgrounds;
  const [machine] = playground?.machines ?? [];
  assert.ok(playground && machine);
  const work = { signal: new AbortController().signal, report: () => undefined };
  const forward = await api.forwards.add(playground.id, machine.name, port, work);
  assert.ok(forward.localPort && forward.localPort !== port, 'that port is taken');
  assert.equal(await (await fetch(`http://127.0.0.1:${forward.localPort}/`)).text(), 'hello');
  const node = { kind: 'machine' as const, playground, machine };
  await until('it is in the tree', () => api.tree.getChildren(node).some((one) => one.kind === 'forward'));
  await vscode.commands.executeCommand('playgrounds.unforward', { kind: 'forward', playground, machine, forward });
  await until('it is gone', () => !api.tree.getChildren(node).some((one) => one.kind === 'forward'));
  server.close();
  server.closeAllConnections();

  console.log('the settings of Remote-SSH: the editor writes them');
  const remote = vscode.workspace.getConfiguration('remote.SSH');
  assert.equal(remote.get('connectTimeout'), 15);
  await remote.update('connectTimeout', CONNECT_TIMEOUT, vscode.ConfigurationTarget.Global);
  await remote.update('remotePlatform', { 'playground-x': 'linux' }, vscode.ConfigurationTarget.Global);

  console.log('a binary that is missing');
  await useBinary('/nowhere/labctl-ssh-proxy');
  await until('it is missed', () => failure(api) === 'no-binary');
  console.log('one that prints HTML');
  await useBinary(fake('junk', 'echo "<html>"; sleep 1000'));
  await until('its output is rejected', () => failure(api) === 'bad-output');
  console.log('one that fails, then works');
  await useBinary(fake('dies', `[ -e ${HOME}/well ] || { echo "labctl-ssh-proxy: it hurts" >&2; exit 10; }; exec ${BINARY} "$@"`));
  await until('its failure is noticed', () => failure(api) === 'failed');
  writeFileSync(path.join(HOME, 'well'), '');
  await until('it is restarted', () => api.watch.situation.kind === 'known');
  console.log('one that hangs: the host stays quick');
  await useBinary(fake('hangs', 'sleep 1000'));
  await vscode.commands.executeCommand('playgrounds.refresh');
  const before = Date.now();
  await vscode.commands.executeCommand('playgrounds.list.focus');
  assert.ok(Date.now() - before < 2000);
  console.log('one that is too old');
  const old = path.join(HOME, 'old');
  writeFileSync(old, '#!/bin/sh\necho labctl-ssh-proxy 0.0.9\n');
  chmodSync(old, 0o755);
  await useBinary(old);
  await until('its age is noticed', () => failure(api) === 'old-binary');

  console.log('500 playgrounds');
  await useBinary(fake('many', `cat ${HOME}/many.jsonl; exec sleep 1000`));
  const took500 = await until('all are there', () => titles(api).length === 500);
  const start = Date.now();
  for (const node of api.tree.getChildren()) {
    api.tree.getTreeItem(node);
    for (const machine of api.tree.getChildren(node)) api.tree.getTreeItem(machine);
  }
  const drawn = Date.now() - start;
  console.log(`500 playgrounds were there in ${took500} ms, and drawn in ${drawn} ms`);
  assert.ok(drawn < 500);
  assert.ok(api.tree.getChildren().slice(0, 100).every((node) => condition(node.playground) === 'up'), 'running first');
  await useBinary(BINARY);
  await until('the real one is back', () => titles(api).length === list().length);
}

/** The authority of a host that Remote-SSH encodes. */
const hex = (host: string): string => `ssh-remote+${Buffer.from(JSON.stringify({ hostName: host })).toString('hex')}`;

/** A window on a stopped playground with a boot delay of 25 s. It is entered once the playground runs. */
async function prewake(): Promise<void> {
  const [before] = list();
  assert.equal(before?.state, 'STOPPED');
  const api = await activate();
  const began = Date.now();
  await api.enter(hex(before.host));
  const took = Date.now() - began;
  assert.equal(list()[0]?.state, 'RUNNING');
  console.log(`awake after ${took} ms`);
  assert.ok(took > 20_000, `the boot takes 25 s, and it took ${took} ms`);
  await until('the window knows', () => api.watch.playgrounds.some((one) => condition(one) === 'up'));
}

/** The same, but the test cancels it, which ends it at once. */
async function cancelled(): Promise<void> {
  const [before] = list();
  assert.equal(before?.state, 'STOPPED');
  const api = await activate();
  const began = Date.now();
  await api.enter(`ssh-remote+${before.host}`);
  assert.ok(Date.now() - began < 20_000);
}

/** A restored window on a playground that was stopped deliberately. The test answers no, then yes. */
async function asked(): Promise<void> {
  const [before] = list();
  assert.equal(before?.state, 'STOPPED');
  const api = await activate();
  await api.enter(`ssh-remote+${before.host}`);
  assert.equal(list()[0]?.state, 'STOPPED');
  // The second question looks like the first one.
  writeFileSync(path.join(HOME, 'answered'), '');
  await api.enter(`ssh-remote+${before.host}.shell-01`);
  assert.equal(list()[0]?.state, 'RUNNING');
}

/** A playground's window, until the test has seen enough. */
async function inside(): Promise<void> {
  const api = await activate();
  await api.enter(`ssh-remote+${list()[0]?.host ?? ''}`);
  await until('the test has seen enough', () => existsSync(path.join(HOME, 'enough')), 90_000);
}

/** The actions of an hour of use, one after the other. The number of the host's descriptors must not grow. */
async function rounds(): Promise<void> {
  const api = await activate();
  const server = createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  const state = (): string | undefined => list()[0]?.state;
  const descriptors = (): number => readdirSync('/proc/self/fd').length;
  let first = 0;
  for (let i = 0; i < 6; i += 1) {
    await vscode.commands.executeCommand('playgrounds.list.focus');
    await until('the tree', () => api.watch.situation.kind === 'known' && api.watch.playgrounds.length === 1);
    const [playground] = api.watch.playgrounds;
    const [machine] = playground?.machines ?? [];
    assert.ok(playground && machine);
    await vscode.commands.executeCommand('playgrounds.wake', playground.id);
    await until('it runs', () => state() === 'RUNNING');
    const work = { signal: new AbortController().signal, report: () => undefined };
    const [kept, ended] = await Promise.all([1, 2].map(() => api.forwards.add(playground.id, machine.name, port, work)));
    assert.ok(kept && ended);
    assert.equal(await (await fetch(`http://127.0.0.1:${kept.localPort ?? 0}/`)).text(), 'hello');
    api.forwards.remove(ended);
    // A port-forward that is cancelled before it listens.
    const abort = new AbortController();
    const cancelled = api.forwards.add(playground.id, machine.name, port, { signal: abort.signal, report: () => undefined });
    abort.abort();
    await cancelled.then(() => assert.fail('it was cancelled'), () => undefined);
    await vscode.commands.executeCommand('playgrounds.terminal', playground.id);
    // VS Code does not end a terminal's process that it has not started yet. This one would wake the playground after its stop.
    const connected = (): boolean => api.watch.playgrounds.some((one) => one.connections.length > 0);
    await until('a terminal, and its connection', connected, 30_000);
    for (const terminal of vscode.window.terminals) terminal.dispose();
    await until('neither', () => vscode.window.terminals.length === 0 && !connected());
    await vscode.commands.executeCommand('playgrounds.refresh');
    await vscode.commands.executeCommand('playgrounds.stop', playground.id);
    await until('it is stopped', () => state() === 'STOPPED');
    // In the last round the end of the window also ends a port-forward and the watch.
    if (i < 5) {
      api.forwards.remove(kept);
      await vscode.commands.executeCommand('workbench.view.explorer');
    }
    if (i === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      first = descriptors();
    }
  }
  server.close();
  server.closeAllConnections();
  // Two pipes of the port-forward, two of the watch, and some slack for the host's own.
  await until(`no descriptors are left over: ${first} and ${descriptors()}`, () => descriptors() <= first + 8);
}

export async function run(): Promise<void> {
  const suites: Record<string, () => Promise<void>> = { plain, prewake, cancelled, asked, inside, rounds };
  const suite = suites[readFileSync(path.join(HOME, 'suite'), 'utf8')];
  assert.ok(suite);
  await suite();
}

import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import type { Memento } from 'vscode';
import { beforeEach, describe, expect, it } from 'vitest';
import manifest from '../../package.json';
import { COMMANDS, SECTION, SETTINGS, SITUATION, VIEW } from '../../src/commands';
import { readForwardLine, readWatchLine } from '../../src/json';
import { PortForwards } from '../../src/portforwards';
import { CONNECT_TIMEOUT, forgetHosts, offerSettings } from '../../src/remotesettings';
import { Slowness, render } from '../../src/statusbar';
import { Throughput } from '../../src/throughput';
import type { Node, Tree } from '../../src/tree';
import { connectionItem } from '../../src/tree/items';
import { Watch } from '../../src/watch';
import { condition } from '../../src/playground';
import * as format from '../../src/format';
import { openHost } from '../../src/open';
import { commands, user } from './vscode';
import { binary, listed, menuOf, one, program, treeOf, until } from './world';

const sorted = (names: readonly string[]): string[] => [...names].sort();

describe('package.json and the code', () => {
  const { contributes } = manifest;

  it('have the same commands, settings and view', () => {
    expect(sorted(contributes.commands.map((one) => one.command))).toEqual(sorted(COMMANDS));
    expect(sorted(Object.keys(contributes.configuration.properties))).toEqual(sorted(SETTINGS.map((key) => `${SECTION}.${key}`)));
    expect(contributes.views.playgrounds.map((one) => one.id)).toEqual([VIEW]);
  });

  it('name nothing in menus and welcomes that does not exist', () => {
    const menus = Object.values(contributes.menus).flat();
    for (const { command } of menus) expect(COMMANDS).toContain(command);
    const situations = ['empty', 'not-logged-in', 'no-binary', 'old-binary', 'failed'];
    expect(contributes.viewsWelcome.map((one) => one.when)).toEqual(situations.map((one) => `${SITUATION} == ${one}`));
    for (const { contents, view } of contributes.viewsWelcome) {
      expect(view).toBe(VIEW);
      for (const [, command] of contents.matchAll(/\(command:([^)]*)\)/g)) expect(COMMANDS).toContain(command);
    }
  });

  it('read every setting', () => {
    const sources = ['extension', 'statusbar'].map((name) => readFileSync(path.join(import.meta.dirname, `../../src/${name}.ts`), 'utf8'));
    for (const key of SETTINGS) expect(sources.join()).toContain(`'${key}'`);
  });

  it('use no proposed API and run on the side of the user', () => {
    expect(manifest).not.toHaveProperty('enabledApiProposals');
    expect(manifest).not.toHaveProperty('dependencies');
    expect(manifest.extensionKind).toEqual(['ui']);
    for (const one of Object.values(contributes.configuration.properties)) expect(one.scope).toBe('application');
  });
});

describe('texts', () => {
  it('for times and sizes', () => {
    expect([40, 720, 3900, 36_000].map((s) => format.timeLeft(s * 1000, 0))).toEqual(['40s', '12m', '1h 05m', '10h 00m']);
    expect([format.timeLeft(undefined), format.timeLeft(5, 6)]).toEqual(['', '']);
    expect([0, 999, 1000, 12_345, 3_400_000, 5e12].map(format.size)).toEqual(['0 B', '999 B', '1.0 KB', '12 KB', '3.4 MB', '5000 GB']);
    expect([0.42, 23.4].map(format.roundTrip)).toEqual(['0.4 ms', '23 ms']);
  });

  it('for states', () => {
    const machine = { name: 'm', ready: false, state: 'RUNNING' };
    expect(format.state(one())).toBe('running');
    expect(format.state(one({ machines: [machine] }))).toBe('starting');
    expect(format.state(one({ initTasks: { done: 2, total: 5 } }))).toBe('preparing 2/5');
    expect(format.state(one({ initTasks: { done: 5, total: 5 } }))).toBe('running');
    expect(format.state(one({ state: 'WARMING_UP' }))).toBe('starting');
    expect(format.state(one({ state: 'FAILED' }))).toBe('failed');
    expect(format.state(one({ state: 'NEW_STATE' }))).toBe('new state');
    expect(condition(one({ state: 'NEW_STATE' }))).toBe('unknown');
  });

  it('for clients', () => {
    expect(format.client('SSH-2.0-OpenSSH_9.2p1 Debian-2')).toBe('OpenSSH 9.2');
    expect(format.client('SSH-2.0-paramiko_3.4.0')).toBe('paramiko 3.4.0');
    expect(format.client('')).toBe('connection');
  });
});

describe('JSON', () => {
  it('is read leniently', () => {
    for (const text of ['{}', 'null', '7', '{"type":"x"}']) expect(readWatchLine(text).type).toBe('other');
    expect(() => readWatchLine('<html>')).toThrow();
    const line = readWatchLine('{"type":"playgrounds","playgrounds":[{}, null, {"machines":[{"users":null}]}]}');
    expect(line.type === 'playgrounds' && line.playgrounds.map(condition)).toEqual(['unknown', 'unknown', 'unknown']);
  });

  it('is read for port-forwards, too', () => {
    expect(readForwardLine('{"event":"listening","address":"127.0.0.1:8080"}')).toEqual({ event: 'listening', localPort: 8080 });
    expect(readForwardLine('{"event":"listening","address":"[::1]:81"}')).toEqual({ event: 'listening', localPort: 81 });
    expect(readForwardLine('{"event":"waiting","message":"m"}')).toEqual({ event: 'waiting', message: 'm' });
    expect(readForwardLine('{"event":"ready"}')).toEqual({ event: 'other' });
    expect(readForwardLine('<html>')).toEqual({ event: 'other' });
  });
});

describe('the tree', () => {
  const connection = {
    pid: 7, phase: 'connected', since: 1, playground: '', machine: 'docker-01', user: 'laborant',
    client: 'SSH-2.0-OpenSSH_9.2', sent: 1200, received: 3_400_000, roundTripMs: 23.4, message: '',
  };

  async function built(...playgrounds: unknown[]): Promise<{ tree: Tree; forwards: PortForwards; end: () => void }> {
    const said = JSON.stringify({ type: 'playgrounds', playgrounds });
    const listening = '{"event":"listening","forward":0,"address":"127.0.0.1:4321"}';
    const traffic = '{"event":"traffic","forward":0,"open":1,"total":1,"sent":10,"received":20}';
    const it = binary(program(`[ "$1" = port-forward ] && { echo '${listening}'; echo '${traffic}'; exec sleep 1000; }\necho '${said}'; exec sleep 1000`));
    const watch = new Watch(it, () => undefined);
    const forwards = new PortForwards(it, () => undefined);
    watch.hold();
    await until(() => watch.situation.kind === 'known');
    return { tree: treeOf(it, watch, forwards), forwards, end: () => { watch.dispose(); forwards.dispose(); } };
  }

  const first = (nodes: Node[]): Node => nodes[0] as Node;

  it('shows playgrounds, machines, connections and forwards', async () => {
    const { tree, forwards, end } = await built(listed({ connections: [connection] }), listed({ id: 'x', title: 'Old', state: 'STOPPED' }));
    const [up, down] = tree.getChildren();
    const item = tree.getTreeItem(up as Node);
    expect(item).toMatchObject({ label: 'Compose trial', contextValue: 'playground.up', iconPath: { id: 'vm-running', color: { id: 'charts.green' } } });
    expect(item.description).toMatch(/^docker · running · 1h 0[45]m left$/);
    expect(tree.getTreeItem(down as Node)).toMatchObject({ contextValue: 'playground.down', description: 'docker · stopped' });

    const machine = first(tree.getChildren(up));
    expect(tree.getTreeItem(machine)).toMatchObject({ label: 'docker-01', description: 'laborant · running', contextValue: 'machine.up' });
    expect(tree.getTreeItem(first(tree.getChildren(machine)))).toMatchObject({ label: 'OpenSSH 9.2', description: 'laborant · ↓ 3.4 MB · ↑ 1.2 KB · 23 ms' });

    const work = { signal: new AbortController().signal, report: () => undefined };
    const made = await forwards.add('0123456789abcdef01234567', 'docker-01', 80, work);
    expect(made.localPort).toBe(4321);
    await until(() => made.open === 1);
    const forward = tree.getChildren(machine)[1] as Node;
    expect(tree.getTreeItem(forward)).toMatchObject({ label: 'localhost:4321', description: 'to port 80 · 1 open · ↓ 20 B · ↑ 10 B', contextValue: 'forward.own' });
    forwards.remove(made);
    expect(tree.getChildren(machine).map((node) => node.kind)).toEqual(['connection', 'containers']);
    end();
  });

  it('shows a connection into a container below its machine', async () => {
    const { tree, end } = await built(listed({ connections: [{ ...connection, container: 'web', user: 'container' }] }));
    const machine = first(tree.getChildren(first(tree.getChildren())));
    expect(tree.getTreeItem(first(tree.getChildren(machine))).description).toMatch(/^web · container · ↓/);
    end();
  });

  it('shows a connection into a container of a pod by the pod', () => {
    expect(['web', '', 'pod.default.web-0', 'pod.default.web-0.app'].map(format.inside)).toEqual(['web', '', 'default/web-0', 'default/web-0/app']);
  });

  it('updates only what is different', async () => {
    const other = listed({ id: 'x', title: 'Old', state: 'STOPPED' });
    const lines = [[listed(), other], [listed(), other], [listed({ title: 'New' }), other], [other]].map((playgrounds) => JSON.stringify({ type: 'playgrounds', playgrounds }));
    const it = binary(program(lines.map((line) => `sleep 0.1; echo '${line}'`).join('\n') + '\nexec sleep 1000'));
    const watch = new Watch(it, () => undefined);
    const tree = treeOf(it, watch);
    const fired: unknown[] = [];
    tree.onDidChangeTreeData((nodes) => fired.push(nodes?.map((node) => node.playground.title)));
    watch.hold();
    await until(() => fired.length === 3);
    expect(fired).toEqual([undefined, ['New'], undefined]);
    watch.dispose();
  });

  it('has menus for what can be done, by the state', () => {
    const inline = (value: string): string[] => menuOf(value, 'inline');
    expect(inline('playground.up')).toEqual(['terminal', 'open', 'stop']);
    expect(inline('playground.up.starting')).toEqual(['terminal', 'open', 'stop']);
    expect(inline('playground.down')).toEqual(['wake', 'open']);
    expect(inline('playground.gone')).toEqual([]);
    expect(inline('machine.up')).toEqual(['terminal', 'open']);
    expect(inline('machine.off')).toEqual(['startMachine']);
    expect(inline('forward.own')).toEqual(['browse', 'unforward']);
  });
});

describe('the status bar', () => {
  const connection = { pid: 7, phase: 'connected', machine: 'docker-01', sent: 0, received: 0, roundTripMs: 23.4 };

  it('shows a long round trip, throughput and time left', () => {
    const now = Date.now();
    const playground = one({ connections: [connection, { ...connection, roundTripMs: 9.9 }] }, now);
    const shown = (isSlow: boolean) => render(playground, { sent: 1500, received: 2_000_000 }, isSlow, now);
    expect(shown(true).text).toBe('$(vm-running) Compose trial · $(watch) 9.9 ms · ↓ 2.0 MB/s ↑ 1.5 KB/s · 1h 05m');
    expect(shown(false).text).toBe('$(vm-running) Compose trial · ↓ 2.0 MB/s ↑ 1.5 KB/s · 1h 05m');
    expect(shown(false).tooltip).toContain('\nLatency: 9.9 ms\n');
    const kept = render(one({ kept: { steps: 2, firstEnd: now } }, now), { sent: 0, received: 0 }, false, now);
    expect(kept.text).toBe('$(vm-running) Compose trial · 1h 05m kept');
    expect(kept.tooltip).toContain('\nIt is kept while it is used: its own end was ');
    expect(render(one({ state: 'STOPPED', expiresIn: 0 }), { sent: 0, received: 0 }, false).text).toBe('$(vm-outline) Compose trial · stopped');
  });

  it('takes a connection for slow by a threshold, and does not flicker there', () => {
    const slowness = new Slowness();
    const seen = (...all: (number | undefined)[]): boolean[] => all.map((ms) => slowness.check(ms, 300));
    expect(seen(undefined, 299, 300, 299, 301, 240, 239, 299, 300)).toEqual([false, false, true, true, true, true, false, false, true]);
    expect(seen(undefined, 299)).toEqual([false, false]);
    expect(new Slowness().check(9999, 0)).toBe(false);
  });

  it('shows since when the machine is out of reach, and that it came back', () => {
    const since = new Date(2026, 0, 2, 14, 5).getTime();
    const away = { ...connection, phase: 'away', since };
    const still = { sent: 0, received: 0 };
    const clock = new Date(since).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
    const shown = render(one({ connections: [connection, away, { ...away, since: since + 60_000 }] }), still, true);
    expect(shown.text).toContain(`$(sync~spin) away since ${clock}`);
    expect(shown.text).not.toContain('23 ms');
    const back = render(one({ connections: [{ ...connection, resumed: 1 }, { ...connection, resumed: 2 }] }), still, true);
    expect(back.text).toContain('23 ms');
    expect(back.tooltip).toContain('2 connections, resumed 3 times');
    const [first] = one({ connections: [{ ...away, user: 'laborant', resumed: 1 }] }).connections;
    if (!first) throw new Error();
    expect(connectionItem(first)).toMatchObject({ description: `laborant · away since ${clock}`, tooltip: 'process 7\nresumed once' });
  });

  it('calculates rates between two measurements', () => {
    const rates = new Throughput();
    const [at] = one({ connections: [{ ...connection, sent: 1000, received: 5000 }] }).connections;
    const [later] = one({ connections: [{ ...connection, sent: 6000, received: 55_000 }] }).connections;
    if (!at || !later) throw new Error();
    expect(rates.measure([at], 0)).toEqual({ sent: 0, received: 0 });
    expect(rates.measure([later], 5000)).toEqual({ sent: 1000, received: 10_000 });
    expect(rates.measure([later], 5100)).toEqual({ sent: 1000, received: 10_000 });
    expect(rates.measure([], 10_000)).toEqual({ sent: 0, received: 0 });
  });
});

describe('the settings of Remote-SSH', () => {
  const stored = new Map<string, unknown>();
  const memory = {
    get: (key: string) => stored.get(key),
    update: (key: string, value: unknown) => Promise.resolve(void stored.set(key, value)),
  } as unknown as Memento;

  beforeEach(() => {
    stored.clear();
    Object.assign(user, { settings: {}, answer: undefined, asked: [] });
    user.known = { 'remote.SSH.connectTimeout': 15, 'remote.SSH.remotePlatform': {} };
  });

  it('are offered once, and then set for each host', async () => {
    user.answer = 'Change Settings';
    user.settings['remote.SSH.remotePlatform'] = { mine: 'macOS' };
    await offerSettings(memory, 'playground-a');
    await offerSettings(memory, 'playground-b');
    expect(user.asked.length).toBe(1);
    expect(user.settings).toEqual({
      'remote.SSH.connectTimeout': CONNECT_TIMEOUT,
      'remote.SSH.remotePlatform': { mine: 'macOS', 'playground-a': 'linux', 'playground-b': 'linux' },
    });
    await forgetHosts('a');
    expect(user.settings['remote.SSH.remotePlatform']).toEqual({ mine: 'macOS', 'playground-b': 'linux' });
  });

  it('stay after a no, and are offered again only without an answer', async () => {
    await offerSettings(memory, 'playground-a');
    user.answer = 'Keep Settings';
    await offerSettings(memory, 'playground-a');
    await offerSettings(memory, 'playground-a');
    expect(user.asked.length).toBe(2);
    expect(user.settings).toEqual({});
  });

  it('stay if no extension declares them', async () => {
    user.known = {};
    user.answer = 'Change Settings';
    await offerSettings(memory, 'playground-a');
    expect([user.asked, user.settings]).toEqual([[], {}]);
  });

  it('do not keep a host from opening, in this window or a new one', async () => {
    await openHost(memory, 'playground-a.m', '/root', false);
    await openHost(memory, 'playground-a', '/home/laborant', true);
    expect(commands.ran).toEqual([
      ['vscode.openFolder', 'vscode-remote://ssh-remote+playground-a.m/root', { forceReuseWindow: true }],
      ['vscode.openFolder', 'vscode-remote://ssh-remote+playground-a/home/laborant', { forceNewWindow: true }],
    ]);
  });
});

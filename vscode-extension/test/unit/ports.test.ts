// The ports of a playground: read, scanned, shown, opened, forwarded, exposed.

import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import type { Playground } from '../../src/playground';
import { Failure } from '../../src/failure';
import { readPorts } from '../../src/json';
import { PAUSE_MS, type Port } from '../../src/ports';
import { type Node, Tree } from '../../src/tree';
import { Watch } from '../../src/watch';
import { commands, user } from './vscode';
import { acting, binary, folder, listed, menuOf, one, program, treeOf, until, viewOn } from './world';

const ID = '0123456789abcdef01234567';
const port = (number: number, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  machine: 'docker-01', number, protocol: 'http', listening: true, loopbackOnly: false, exposed: [], forwards: [], saved: [], ...more,
});
const exposed = (access = 'private'): Record<string, unknown> => ({ id: `p-${access}`, url: `https://web-${access}.example.org`, access, tls: false });
const shell = { id: 's-1', machine: 'docker-01', user: 'laborant', access: 'private', url: 'https://shell.example.org' };
const portList = (ports: unknown[], problems: unknown[] = []): Record<string, unknown> => ({
  playground: ID, host: `playground-${ID}`, ports, shells: [], problems,
});
const read = (more: Record<string, unknown>): Port => readPorts(JSON.stringify(portList([port(80, more)]))).ports[0] as Port;

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, answers: [], asked: [], offered: [], cancels: false, opened: [], clipboard: '' });
  commands.ran = [];
});

describe('ports in JSON', () => {
  it('are read leniently', () => {
    for (const text of ['{}', 'null', '7', '{"ports":7,"shells":null}']) expect(readPorts(text)).toEqual({ ports: [], shells: [], problems: [] });
    expect(() => readPorts('<html>')).toThrow();
    expect(readPorts('{"ports":[{"number":80,"protocol":"SPDY","loopbackOnly":null,"exposed":[{}],"forwards":[null],"saved":[{}],"new":1}]}').ports).toEqual([
      {
        machine: '', number: 80, protocol: undefined, listening: undefined, loopbackOnly: false,
        exposures: [{ id: '', url: '', access: '' }], forwards: [{ local: '', pid: 0 }], saved: [],
      },
    ]);
  });
});

/** A view on a fake binary that counts its scans. It lists the playgrounds of `lists`, and prints `said` for `ports`. */
function viewed(said: string, lists: unknown[][] = [[listed()]], also = '') {
  const at = folder();
  const lines = lists.map((playgrounds) => `echo '${JSON.stringify({ type: 'playgrounds', playgrounds })}'; sleep 0.2`);
  const it = binary(program(`[ "$1" = ports ] && { echo "$@" >> ${at}/scans; ${said}; exit; }\n${also}\n${lines.join('\n')}\nexec sleep 1000`));
  const { tree, find, ...rest } = viewOn(it);
  return {
    ...rest, tree,
    scans: (): number => (existsSync(`${at}/scans`) ? readFileSync(`${at}/scans`, 'utf8').trim().split('\n').length : 0),
    labels: () => tree.getChildren(find('ports')).map((node) => tree.getTreeItem(node).label),
    group: () => { const node = find('ports'); return node && tree.getTreeItem(node); },
  };
}

describe('a scan', () => {
  const two = `echo '${JSON.stringify(portList([port(80), port(5432, { protocol: 'tcp' })]))}'`;
  /** Moves the clock on by one pause, and lets a scan that is due begin. */
  const pass = async (): Promise<void> => {
    await vi.advanceTimersByTimeAsync(PAUSE_MS + 1);
  };
  const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  it('begins when the ports are expanded, and is shown', async () => {
    const { watch, labels, group, scans, end } = viewed(two);
    await until(() => watch.situation.kind === 'known');
    expect(group()).toMatchObject({ label: 'Ports', description: '', collapsibleState: 1 });
    expect(scans()).toBe(0);
    expect(labels()).toEqual(['Scanning the ports']);
    await until(() => labels().length === 2);
    expect(labels()).toEqual(['80', '5432']);
    expect(group()?.description).toBe('2 listening');
    expect(scans()).toBe(1);
    end();
  });

  it('is repeated after a pause while the ports are on the screen, and only then', async () => {
    const { watch, ports, labels, fold, filter, setVisible, scans, end } = viewed(two);
    await until(() => watch.situation.kind === 'known');
    let changes = 0;
    ports.onDidChange(() => changes++);
    labels();
    await until(() => labels().length === 2);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    const done = async (count: number): Promise<void> => {
      // By a clock that is not faked.
      const limit = performance.now() + 20_000;
      while (scans() < count && performance.now() < limit) await settle();
      expect(scans()).toBe(count);
      // The end of the process.
      while (changes < count && performance.now() < limit) await settle();
      expect(changes).toBe(count);
    };
    try {
      // The timer was set by the real clock.
      await ports.refresh(ID);
      await done(2);
      await pass();
      await done(3);
      for (const [hide, show] of [
        [() => { fold('ports', true); }, () => { fold('ports', false); }],
        [() => { fold('playground', true); }, () => { fold('playground', false); }],
        [() => { setVisible(false); }, () => { setVisible(true); }],
        // VS Code asks for the lines that it shows again.
        [() => { filter.set('of another'); }, () => { filter.set(''); labels(); }],
      ] as const) {
        const before = scans();
        hide();
        for (let i = 0; i < 4; i += 1) await pass();
        for (let i = 0; i < 50; i += 1) await settle();
        expect(scans()).toBe(before);
        // The last scan is old by now, so the next one is due at once.
        show();
        await vi.advanceTimersByTimeAsync(1);
        await done(before + 1);
      }
      // Hidden and shown again at once: a scan that is just over is not repeated.
      const before = scans();
      setVisible(false);
      setVisible(true);
      await vi.advanceTimersByTimeAsync(PAUSE_MS / 2);
      for (let i = 0; i < 50; i += 1) await settle();
      expect(scans()).toBe(before);
    } finally {
      vi.useRealTimers();
      end();
    }
  });

  it('that runs goes on when the ports are hidden, and is used when they are shown again', async () => {
    const go = `${folder()}/go`;
    const { watch, labels, setVisible, scans, ports, end } = viewed(`while [ ! -e ${go} ]; do sleep 0.05; done; ${two}`);
    await until(() => watch.situation.kind === 'known');
    labels();
    await until(() => scans() === 1);
    setVisible(false);
    setVisible(true);
    setVisible(false);
    writeFileSync(go, '');
    await until(() => ports.of(ID).list !== undefined);
    setVisible(true);
    expect(labels()).toEqual(['80', '5432']);
    expect(scans()).toBe(1);
    end();
  });

  it('whose failure is in the tree and nowhere else, beside the ports that were known', async () => {
    const well = `${folder()}/well`;
    const failing = `echo '${JSON.stringify({ error: { kind: 'network', message: 'the platform does not answer', hint: 'look' } })}'; exit 10`;
    const { watch, labels, group, ports, end } = viewed(`[ -e ${well} ] || { ${failing}; }; ${two}`);
    await until(() => watch.situation.kind === 'known');
    labels();
    await until(() => ports.of(ID).failure !== undefined);
    expect(labels()).toEqual(['The platform does not answer. Look.']);
    expect(group()?.description).toBe('not up to date');
    writeFileSync(well, '');
    await ports.refresh(ID);
    expect(labels()).toEqual(['80', '5432']);
    rmSync(well);
    await ports.refresh(ID);
    expect(labels()).toEqual(['The platform does not answer. Look.', '80', '5432']);
    expect(user.asked).toEqual([]);
    end();
  });

  it('by an older binary says so, and is not repeated', async () => {
    const { watch, labels, ports, scans, setVisible, end } = viewed(`echo "error: unrecognized subcommand 'ports'" >&2; exit 2`);
    await until(() => watch.situation.kind === 'known');
    labels();
    await until(() => ports.of(ID).failure !== undefined);
    expect(labels()).toEqual(['The installed labctl-ssh-proxy is too old for this: it does not know `ports`. Update it.']);
    setVisible(false);
    setVisible(true);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(scans()).toBe(1);
    await ports.refresh();
    expect(scans()).toBe(2);
    expect(user.asked).toEqual([]);
    end();
  });

  it('is forgotten when the playground stops, and so is its node', async () => {
    const { watch, labels, group, ports, end } = viewed(two, [[listed()], [listed()], [listed()], [listed({ state: 'STOPPED' })]]);
    await until(() => watch.situation.kind === 'known');
    labels();
    await until(() => ports.of(ID).list !== undefined);
    await until(() => watch.playgrounds[0]?.state === 'STOPPED');
    expect(ports.of(ID).list).toBeUndefined();
    expect(group()).toBeUndefined();
    end();
  });

  it('that finds nothing says so', async () => {
    const { watch, labels, end } = viewed(`echo '${JSON.stringify(portList([]))}'`);
    await until(() => watch.situation.kind === 'known');
    labels();
    await until(() => labels()[0] !== 'Scanning the ports');
    expect(labels()).toEqual(['No port is listening or exposed']);
    end();
  });
});

it('a scan that tells only a part says what is missing', async () => {
  const problems = [{ part: 'saved', message: 'the saved port-forwards are not known' }, { part: 'shells', message: 'no web terminals' }];
  const { watch, labels, group, end } = viewed(`echo '${JSON.stringify(portList([port(80)], problems))}'`);
  await until(() => watch.situation.kind === 'known');
  labels();
  await until(() => labels().length === 2);
  expect(labels()).toEqual(['The saved port-forwards are not known. No web terminals.', '80']);
  expect(group()?.description).toBe('1 listening · not complete');
  end();
});

it('a port-forward of this window shows once, whatever a scan says of its process', async () => {
  // The port-forward writes its own number into what the next scan prints.
  const at = folder();
  const listening = '{"event":"listening","forward":0,"address":"127.0.0.1:4321"}';
  const one = JSON.stringify(portList([port(80, { forwards: [{ local: '127.0.0.1:4321', pid: 'PID' }] })])).replace('"PID"', 'PID');
  const { watch, labels, tree, forwards, ports, end } = viewed(
    `sed s/PID/$(cat ${at}/pid)/ ${at}/list`, [[listed()]], `[ "$1" = port-forward ] && { echo $$ > ${at}/pid; echo '${listening}'; exec sleep 1000; }`,
  );
  writeFileSync(`${at}/list`, one);
  await until(() => watch.situation.kind === 'known');
  const made = await forwards.add(ID, 'docker-01', 80, { signal: new AbortController().signal, report: () => undefined });
  labels();
  await until(() => labels()[0] === '80');
  const item = () => tree.getChildren({ kind: 'ports', playground: watch.playgrounds[0] as Playground }).map((node) => tree.getTreeItem(node))[0];
  expect(ports.of(ID).list?.ports[0]?.forwards.length).toBe(1);
  expect(item()).toMatchObject({ contextValue: 'port.web.own.hidden', tooltip: 'Port 80 of docker-01\nForwarded by this window: localhost:4321' });
  forwards.remove(made);
  expect(item()).toMatchObject({ contextValue: 'port.web.free.hidden', description: 'http' });
  // One to the same port of a container is none of the machine's.
  await forwards.add(ID, 'docker-01', 80, { signal: new AbortController().signal, report: () => undefined }, { host: 'h', label: 'web' });
  expect(item()).toMatchObject({ contextValue: 'port.web.free.hidden' });
  end();
});

describe('a port in the tree', () => {
  const tree = (): Tree => {
    const it = binary('/nowhere');
    const watch = new Watch(it, () => undefined);
    return treeOf(it, watch);
  };
  const own = { playground: ID, machine: 'docker-01', container: '', remotePort: 80, localPort: 8080, open: 0, sent: 0, received: 0 };
  const item = (more: Record<string, unknown>, forwarded = false, playground = one()) =>
    tree().getTreeItem({ kind: 'port', playground, port: read(more), own: forwarded ? own : undefined });

  it('shows its protocol, and where it can be reached', () => {
    expect(item({})).toMatchObject({ label: '80', description: 'http', iconPath: { id: 'globe' }, contextValue: 'port.web.free.hidden' });
    expect(item({ protocol: 'tcp' })).toMatchObject({ description: 'tcp', iconPath: { id: 'circuit-board' }, contextValue: 'port.raw.free.hidden' });
    expect(item({ protocol: null, listening: false, exposed: [exposed()] })).toMatchObject({
      description: 'not listening · exposed', contextValue: 'port.web.free.exposed', iconPath: { color: { id: 'charts.green' } },
    });
    expect(item({ exposed: [exposed('public')] })).toMatchObject({ description: 'http · public', iconPath: { color: { id: 'charts.yellow' } } });
    expect(item({}, true)).toMatchObject({ description: 'http · at localhost:8080', contextValue: 'port.web.own.hidden' });
    expect(item({ forwards: [{ local: '127.0.0.1:9090', pid: 7 }] })).toMatchObject({
      description: 'http · at 127.0.0.1:9090', contextValue: 'port.web.elsewhere.hidden', tooltip: 'Port 80 of docker-01\nForwarded by process 7: 127.0.0.1:9090',
    });
    expect(item({ loopbackOnly: true })).toMatchObject({ description: 'http · loopback only' });
    expect(item({ loopbackOnly: true }).tooltip).toContain('listen on all interfaces (0.0.0.0)');
  });

  it('names its machine if there are several, and is not forwarded from one without SSH', () => {
    const [first] = listed()['machines'] as object[];
    const playground = one({ machines: [{ ...first, ssh: false }, { ...first, name: 'node-02' }] });
    expect(item({}, false, playground)).toMatchObject({ description: 'docker-01 · http', contextValue: 'port.web.closed.hidden' });
  });

  it('has the actions that suit it', () => {
    expect(menuOf('port.web.free.hidden')).toEqual(['browse', 'browse', 'forwardPort', 'expose', 'exposePublicly']);
    expect(menuOf('port.raw.free.hidden')).toEqual(['forwardPort', 'forwardPort', 'expose', 'exposePublicly']);
    expect(menuOf('port.web.own.exposed')).toEqual(['browse', 'unforward', 'unexpose', 'browse', 'copyAddress', 'unforward', 'unexpose']);
    expect(menuOf('port.web.elsewhere.hidden')).toEqual(['browse', 'browse', 'copyAddress', 'forwardPort', 'expose', 'exposePublicly']);
    expect(menuOf('port.web.closed.hidden')).toEqual(['browse', 'browse', 'expose', 'exposePublicly']);
    expect(menuOf('shell')).toEqual(['browse', 'unexpose', 'browse', 'copyAddress', 'unexpose']);
    expect(menuOf('ports')).toEqual(['scan', 'expose', 'exposePublicly']);
    expect(menuOf('note')).toEqual([]);
  });
});

describe('the actions on a port', () => {
  const node = (more: Record<string, unknown> = {}): Node => ({ kind: 'port', playground: one(), port: read(more), own: undefined });
  const shellNode: Node = { kind: 'shell', playground: one(), shell };

  it('open its address on the web, else its local one', async () => {
    const { does, runs } = acting([listed()]);
    await does['playgrounds.browse'](node({ exposed: [exposed()] }));
    await does['playgrounds.browse'](shellNode);
    await does['playgrounds.browse'](node({ exposed: [{ ...exposed(), url: 'file:///etc/passwd' }] }));
    expect(user.opened).toEqual(['https://web-private.example.org', 'https://shell.example.org']);
    await does['playgrounds.browse'](node({ protocol: 'https', forwards: [{ local: '0.0.0.0:9090', pid: 7 }] }));
    expect(commands.ran.map(([name, uri]) => `${String(name)} ${String(uri)}`)).toEqual(['vscode.open https://127.0.0.1:9090']);
    expect(runs()).toEqual([]);
    // Without any of them it is forwarded first; this binary does not do that.
    await expect(does['playgrounds.browse'](node())).rejects.toThrow(Failure);
    expect(runs().at(-1)).toMatch(`port-forward ${ID} -m docker-01 -L 127.0.0.1:`);
  });

  it('copy the address', async () => {
    const { does } = acting([listed()]);
    for (const [subject, address] of [
      [node({ exposed: [exposed()], forwards: [{ local: '127.0.0.1:1', pid: 7 }] }), 'https://web-private.example.org'],
      [node({ forwards: [{ local: '127.0.0.1:1', pid: 7 }] }), '127.0.0.1:1'],
      [shellNode, 'https://shell.example.org'],
    ] as const) {
      await does['playgrounds.copyAddress'](subject);
      expect(user.clipboard).toBe(address);
    }
  });

  it('expose it for the user, without a question', async () => {
    const { does, runs } = acting([listed()], { expose: exposed() });
    await does['playgrounds.expose'](node());
    expect(runs()).toEqual([`expose ${ID} 80 --machine docker-01 --json`]);
    await until(() => user.asked.length === 1);
    expect(user.asked[0]).toBe('Port 80 of docker-01 is exposed for you, while you are logged in in the browser: https://web-private.example.org');
    expect(user.offered).toEqual(['Open', 'Copy Address']);
    await does['playgrounds.expose'](node({ protocol: 'https', loopbackOnly: true }));
    expect(runs().at(-1)).toBe(`expose ${ID} 80 --machine docker-01 --tls --json`);
    await until(() => user.asked.length === 2);
    expect(user.asked[1]).toContain('listens on the loopback interface only');
  });

  it('expose it for everyone only after a yes', async () => {
    const { does, runs } = acting([listed()], { expose: exposed('public') });
    await does['playgrounds.exposePublicly'](node());
    expect(user.asked).toEqual(['Expose port 80 of docker-01 (Compose trial) publicly? Everyone who knows its address can then use it, without a login.']);
    expect(runs()).toEqual([]);
    user.answers = ['Expose Publicly', 'Copy Address'];
    await does['playgrounds.exposePublicly'](node());
    expect(runs()).toEqual([`expose ${ID} 80 --machine docker-01 --public --yes --json`]);
    await until(() => user.clipboard !== '');
    expect(user.clipboard).toBe('https://web-public.example.org');
  });

  it('expose one that does not listen yet', async () => {
    const { does, runs } = acting([listed()], { expose: exposed() });
    user.answer = '3000';
    await does['playgrounds.expose'](ID);
    expect(user.asked[0]).toBe('Enter the port of docker-01 to expose');
    expect(runs()).toContain(`expose ${ID} 3000 --machine docker-01 --json`);
  });

  it('hide it and shells, by their ids', async () => {
    const { does, runs } = acting([listed()]);
    await does['playgrounds.unexpose'](node({ exposed: [exposed(), exposed('public')] }));
    await does['playgrounds.unexpose'](shellNode);
    expect(runs()).toEqual([`unexpose ${ID} p-private --json`, `unexpose ${ID} p-public --json`, `unexpose ${ID} s-1 --json`]);
    await expect(does['playgrounds.unexpose'](node({ exposed: [{}] }))).rejects.toThrow('has no id');
  });

  it('do nothing without a port', async () => {
    const { does, runs } = acting([listed()]);
    for (const name of ['browse', 'forwardPort', 'copyAddress', 'unexpose'] as const) await does[`playgrounds.${name}`](undefined);
    expect(runs()).toEqual([]);
  });
});

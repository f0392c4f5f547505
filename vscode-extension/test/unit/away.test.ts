// Readable host names, the filter, the account, the report, and the message after a slow wake.

import type { Memento } from 'vscode';
import { beforeEach, describe, expect, it } from 'vitest';
import manifest from '../../package.json';
import { knownAliases, rememberAliases } from '../../src/aliases';
import { playgroundHost } from '../../src/authority';
import { FILTERED } from '../../src/commands';
import { Containers } from '../../src/containers';
import { enterWindow } from '../../src/extension';
import { Filter } from '../../src/filter';
import * as format from '../../src/format';
import { readAccount } from '../../src/json';
import { Pods } from '../../src/pods';
import { PortForwards } from '../../src/portforwards';
import { Ports } from '../../src/ports';
import { sayingReady } from '../../src/ready';
import { Tree } from '../../src/tree';
import { machineItem, playgroundItem } from '../../src/tree/items';
import { Watch } from '../../src/watch';
import { commands, terminals, user, window } from './vscode';
import { acting, binary, listed, one, program, until } from './world';

const ID = '0123456789abcdef01234567';
const HOST = `playground-${ID}`;
const [machine] = listed()['machines'] as Record<string, unknown>[];
const TWO = [
  { ...machine, name: 'node-01', host: `${HOST}.node-01`, alias: 'my-lab.node-01' },
  { ...machine, name: 'node-02', host: `${HOST}.node-02`, alias: 'my-lab.node-02' },
];

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, answers: [], asked: [], offered: [], checks: [], cancels: false, clipboard: '' });
  [commands.ran, commands.contexts, window.documents] = [[], {}, []];
  window.state.focused = true;
});

const memento = (): Memento => {
  const stored = new Map<string, unknown>();
  return { get: (key: string) => stored.get(key), update: (key: string, value: unknown) => Promise.resolve(void stored.set(key, value)) } as unknown as Memento;
};

describe('a readable host name', () => {
  it.each([
    ['ssh-remote+my-lab', HOST],
    ['ssh-remote+root@my-lab:22', HOST],
    ['ssh-remote+my-lab.node-01', `${HOST}.node-01`],
    ['ssh-remote+my-lab.node-01.web', `${HOST}.node-01.web`],
    [`ssh-remote+${Buffer.from(JSON.stringify({ hostName: 'my-lab' })).toString('hex')}`, HOST],
    ['ssh-remote+other', undefined],
    ['ssh-remote+constructor', undefined],
    ['ssh-remote+my-lab.$(id)', undefined],
    ['ssh-remote+my-lab.a.b.c', undefined],
  ])('%s leads to its playground', (authority, host) => {
    expect(playgroundHost(authority, { 'my-lab': ID })).toBe(host);
    if (!authority.includes('7b22')) expect(playgroundHost(authority)).toBeUndefined();
  });

  it('is remembered from one list to the next, and forgotten with its playground', async () => {
    const memory = memento();
    const seen = async (...playgrounds: unknown[]): Promise<unknown> => {
      const watch = new Watch(binary(program(`echo '${JSON.stringify(playgrounds)}'`)), () => undefined);
      rememberAliases(watch, memory);
      await watch.fetch();
      return knownAliases(memory);
    };
    expect(await seen(listed({ alias: 'my-lab' }), listed({ id: 'x', alias: null }), listed({ id: 'y' }))).toEqual({ 'my-lab': ID });
    expect(await seen(listed({ alias: 'new-name' }))).toEqual({ 'new-name': ID });
    const broken = new Watch(binary(program('exit 1')), () => undefined);
    rememberAliases(broken, memory);
    await broken.fetch().catch(() => undefined);
    expect(knownAliases(memory)).toEqual({ 'new-name': ID });
    expect(await seen()).toEqual({});
  });

  it('is decided by the new list: an old one may wake what is not meant, or for a host of the user', async () => {
    const other = 'f'.repeat(24);
    const stopped = (more: object): Record<string, unknown> => listed({ state: 'STOPPED', ...more });
    const enter = async (all: unknown[], also = '', authority = 'ssh-remote+my-lab'): Promise<[bars: number, runs: string[]]> => {
      const { services, runs } = acting(all, {}, also);
      const context = { ...services.context, subscriptions: [] as { dispose(): void }[] };
      await context.globalState.update('playgrounds.aliases', { 'my-lab': ID });
      await enterWindow({ ...services, context }, authority);
      for (const one of context.subscriptions) one.dispose();
      return [context.subscriptions.length, runs().filter((run) => !run.startsWith('list'))];
    };
    const woken = (host: string): [number, string[]] => [1, ['config-ssh --yes --json', `start ${host} --json`]];
    expect(await enter([stopped({ alias: 'my-lab' })])).toEqual(woken(HOST));
    expect(await enter([stopped({ alias: 'renamed' })])).toEqual([0, []]);
    expect(await enter([stopped({}), stopped({ id: other, alias: 'my-lab' })])).toEqual(woken(`playground-${other}`));
    expect(await enter([stopped({})], '', `ssh-remote+${HOST}`)).toEqual(woken(HOST));
    // Without a list.
    for (const authority of ['ssh-remote+my-lab', `ssh-remote+${HOST}`]) expect((await enter([stopped({})], '[ $1 = list ] && exit 1', authority))[1]).toEqual([]);
  });

  it('is in the copied command and in tooltips; windows keep the one with the id', async () => {
    const listing = listed({ alias: 'my-lab', machines: TWO });
    const playground = one({ alias: 'my-lab', machines: TWO });
    const [, second] = playground.machines;
    if (!second) throw new Error();
    const { does } = acting([listing]);
    await does['playgrounds.copySsh'](ID);
    expect(user.clipboard).toBe('ssh my-lab');
    await does['playgrounds.copySsh']({ kind: 'machine', playground, machine: second });
    expect(user.clipboard).toBe('ssh my-lab.node-02');
    expect([playgroundItem(playground).tooltip, machineItem(playground, second, false, false).tooltip]).toEqual([
      expect.objectContaining({ value: expect.stringContaining('ssh my-lab') as string }), 'ssh my-lab.node-02',
    ]);
    await does['playgrounds.open'](ID);
    expect(commands.ran.at(-1)?.[1]).toContain(`ssh-remote+${HOST}/`);
    await acting([listed({ machines: TWO.map((of) => ({ ...of, alias: undefined })) })]).does['playgrounds.copySsh'](ID);
    expect(user.clipboard).toBe(`ssh ${HOST}`);
  });
});

describe('the filter', () => {
  it('finds titles, names, states, and machines of collapsed playgrounds', async () => {
    const it = binary(program(`echo '${JSON.stringify([listed(), listed({ id: 'f'.repeat(24), title: 'My cluster', state: 'STOPPED', playground: { name: 'k3s', title: 'K3s' }, machines: TWO })])}'`));
    const watch = new Watch(it, () => undefined);
    await watch.fetch();
    const filter = new Filter();
    const tree = new Tree(watch, new PortForwards(it, () => undefined), new Ports(it, watch), new Containers(it, watch, () => undefined), new Pods(it, watch, () => undefined), filter);
    const found = (text: string): string[] => {
      filter.set(text);
      return tree.getChildren().map((node) => node.playground.title);
    };
    expect(found('CLUSTER')).toEqual(['My cluster']);
    expect(found('node-02')).toEqual(['My cluster']);
    expect(found('running')).toEqual(['Compose trial']);
    expect(found(' k3s  stopped ')).toEqual(['My cluster']);
    expect(found('k3s running')).toEqual([]);
    expect([filter.message, commands.contexts[FILTERED]]).toEqual(['Filter: k3s running', true]);
    expect(found('')).toHaveLength(2);
    expect([filter.message, commands.contexts[FILTERED]]).toEqual(['', false]);
    // The tree follows the typing, and goes back after Escape.
    found('cluster');
    const asked = filter.ask();
    user.checks.at(-1)?.('compose');
    expect(tree.getChildren().map((node) => node.playground.title)).toEqual(['Compose trial']);
    await asked;
    expect(tree.getChildren().map((node) => node.playground.title)).toEqual(['My cluster']);
  });
});

describe('the account', () => {
  it('has a name, a plan and a region', () => {
    const words = (more: object): string => format.account(readAccount(JSON.stringify({ id: 'u1', baseUrl: 'https://labs.iximiuz.com', ...more })));
    expect(words({})).toBe('Logged in as u1 at labs.iximiuz.com. Plan: free.');
    expect(words({ githubProfileId: 'ada', premiumAccess: { lifetime: true }, preferredRegion: 'eu' })).toBe('Logged in as ada at labs.iximiuz.com. Plan: premium, lifetime. Region: eu.');
    expect(words({ premiumAccess: { trial: true, until: '2027-01-02T12:00:00Z' } })).toMatch(/Plan: trial until .*2027/);
  });

  it('is logged out after a question', async () => {
    const { does, runs } = acting([listed()], { whoami: { id: 'u1', baseUrl: 'https://labs.iximiuz.com' } });
    user.answers = ['Log Out', undefined];
    await does['playgrounds.account']();
    expect(runs()).toEqual(['whoami --json']);
    user.answers = ['Log Out'];
    await does['playgrounds.logout']();
    expect(runs()).toContain('logout --json');
  });
});

it('the report of doctor is a new document', async () => {
  const { does, runs } = acting([listed()], {}, '[ $1 = doctor ] && echo "all is well" >"$3" && exit 1');
  await does['playgrounds.report']();
  expect(window.documents).toEqual(['all is well\n']);
  expect(runs()[0]).toMatch(/^doctor --report \S+ --json$/);
  const old = acting([listed()], {}, `[ $1 = doctor ] && { echo "error: unexpected argument '--report' found" >&2; exit 2; }`);
  await expect(old.does['playgrounds.report']()).rejects.toMatchObject({ kind: 'old-binary', message: expect.stringContaining('does not know `--report`') as string });
  expect(window.documents).toHaveLength(1);
});

it('the log of connections is followed in a terminal, if the program has one', async () => {
  const old = acting([listed()], {}, `[ "$*" = "logs --help" ] && echo 'Usage: labctl-ssh-proxy logs [OPTIONS] --pod <POD> <PLAYGROUND>'`);
  await expect(old.does['playgrounds.connectionLog'](ID)).rejects.toMatchObject({ kind: 'old-binary' });
  terminals.length = 0;
  await acting([listed()]).does['playgrounds.connectionLog'](ID);
  expect(terminals).toMatchObject([{ name: 'log Compose trial', shellArgs: ['logs', HOST, '-f'] }]);
});

describe('a wake', () => {
  it('is announced if it was slow and the window is not in front', async () => {
    const wake = (): Promise<number> => Promise.resolve(1);
    await sayingReady('My lab', wake, () => undefined, 0);
    window.state.focused = false;
    await sayingReady('My lab', wake, () => undefined);
    expect(user.asked).toEqual([]);
    await sayingReady('My lab', wake, undefined, 0);
    expect([user.asked, user.offered]).toEqual([['My lab is ready.'], []]);
    let opened = 0;
    user.answer = 'Open';
    await sayingReady('My lab', wake, () => (opened += 1), 0);
    await until(() => opened === 1);
    await expect(sayingReady('My lab', () => Promise.reject(new Error('x')), undefined, 0)).rejects.toThrow('x');
    expect(user.asked).toHaveLength(2);
  });
});

it('a path of this computer is not synchronized', () => {
  expect(manifest.contributes.configuration.properties['playgrounds.binary'].ignoreSync).toBe(true);
});

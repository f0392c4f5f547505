// Machines without SSH access.

import { beforeEach, describe, expect, it } from 'vitest';
import type { Subject } from '../../src/actions';
import { prewake } from '../../src/prewake';
import { Watch } from '../../src/watch';
import { condition, sshMachines } from '../../src/playground';
import { commands, user } from './vscode';
import { acting, binary, listed, menuOf, one, program, treeOf } from './world';

const ID = '0123456789abcdef01234567';
const [open] = listed()['machines'] as Record<string, unknown>[];
const closed = { name: 'judge', host: `playground-${ID}.judge`, state: 'RUNNING', ready: false, ssh: false, users: [{ name: 'root' }] };
const second = { ...open, name: 'node-02', host: `playground-${ID}.node-02` };

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, asked: [], offered: [], cancels: false });
  commands.ran = [];
});

describe('a machine without SSH access', () => {
  it('is one whose JSON says so', () => {
    const allows = (ssh: unknown): boolean => one({ machines: [{ ...open, ssh }] }).machines[0]?.ssh === true;
    expect([undefined, null, true, 'no', 0].map(allows)).toEqual([true, true, true, true, true]);
    expect(allows(false)).toBe(false);
    expect(sshMachines(one({ machines: [closed, open] })).map((machine) => machine.name)).toEqual(['docker-01']);
  });

  it('does not keep a playground starting', () => {
    expect(condition(one({ machines: [closed, open] }))).toBe('up');
    expect(condition(one({ machines: [closed, { ...open, ready: false }] }))).toBe('starting');
    expect(condition(one({ machines: [closed] }))).toBe('up');
  });

  it('is shown without any action', async () => {
    const it = binary(program(`echo '${JSON.stringify([listed({ machines: [open, closed] })])}'`));
    const watch = new Watch(it, () => undefined);
    await watch.fetch();
    const tree = treeOf(it, watch);
    const [first, last] = tree.getChildren(tree.getChildren()[0]).map((node) => tree.getTreeItem(node));
    expect(first).toMatchObject({ label: 'docker-01', contextValue: 'machine.up' });
    expect(last).toMatchObject({ label: 'judge', description: 'no SSH', iconPath: { id: 'lock' } });
    expect(last?.accessibilityInformation?.label).toBe('judge, no SSH access');
    expect(menuOf(last?.contextValue)).toEqual([]);
  });
});

describe('actions that need SSH', () => {
  const node = (machines: unknown[], name: string): Subject => {
    const playground = one({ machines });
    const machine = playground.machines.find((of) => of.name === name);
    return machine && { kind: 'machine', playground, machine };
  };

  it('refuse such a machine', async () => {
    const { does, runs } = acting([listed({ machines: [open, closed] })]);
    for (const command of ['open', 'openNew', 'terminal', 'forward', 'copySsh'] as const) {
      await expect(does[`playgrounds.${command}`](node([open, closed], 'judge'))).rejects.toThrow(/SSH access to machine judge/);
    }
    expect([runs(), commands.ran, user.asked]).toEqual([[], [], []]);
  });

  it('do not offer it', async () => {
    const { does } = acting([listed({ machines: [closed, open, second] })]);
    await does['playgrounds.forward'](ID);
    expect([user.asked, user.offered]).toEqual([['Select a machine'], ['docker-01', 'node-02']]);
  });

  it('do not ask when only one machine is left', async () => {
    const { does } = acting([listed({ machines: [closed, open] })]);
    await does['playgrounds.forward'](ID);
    expect(user.asked).toEqual(['Enter the port of docker-01 to forward']);
  });

  it('open the home of a user of another machine', async () => {
    const { does } = acting([listed({ machines: [closed, open] })]);
    await does['playgrounds.open'](ID);
    expect(commands.ran).toEqual([['vscode.openFolder', `vscode-remote://ssh-remote+playground-${ID}/home/laborant`, { forceReuseWindow: true }]]);
  });

  it('do not offer a playground that has no other machine', async () => {
    const { does } = acting([listed({ machines: [closed] }), listed({ id: 'x', title: 'Open' })]);
    await does['playgrounds.copySsh']();
    expect(user.offered).toEqual(['Open']);
    await expect(does['playgrounds.copySsh'](ID)).rejects.toThrow('SSH access to Compose trial');
  });

  it('name the machine of a playground that has several', async () => {
    for (const [machines, host] of [[[open, closed], `playground-${ID}.docker-01`], [[open], `playground-${ID}`]] as const) {
      const { does } = acting([listed({ machines })]);
      await does['playgrounds.copySsh'](node([...machines], 'docker-01'));
      expect(user.clipboard).toBe(`ssh ${host}`);
    }
  });
});

it('a window on such a machine wakes nothing and says why', async () => {
  const { binary: it, watch, runs } = acting([listed({ state: 'STOPPED', machines: [open, closed] })]);
  await prewake(it, watch, `playground-${ID}.judge`);
  expect(user.asked).toEqual(['The platform does not allow SSH access to machine judge. Open another machine.']);
  expect(runs()).toEqual(['list --json']);
  await prewake(it, watch, `playground-${ID}.docker-01`);
  expect(runs().slice(2)).toEqual(['config-ssh --yes --json', `start playground-${ID}.docker-01 --json`]);
});

it('a window in a container wakes the machine that it is on', async () => {
  const { binary: it, watch, runs } = acting([listed({ state: 'STOPPED', machines: [open, closed] })]);
  await prewake(it, watch, `playground-${ID}.docker-01.web`);
  expect(runs().slice(1)).toEqual(['config-ssh --yes --json', `start playground-${ID}.docker-01 --json`]);
});


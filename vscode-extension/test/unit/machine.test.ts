// The machines of a running playground, one of which may be stopped; and more time for a playground.

import { beforeEach, describe, expect, it } from 'vitest';
import manifest from '../../package.json';
import { condition } from '../../src/playground';
import type { Node } from '../../src/tree';
import { Watch } from '../../src/watch';
import { user } from './vscode';
import { acting, binary, listed, menuOf, one, treeOf } from './world';

const ID = '0123456789abcdef01234567';
const [first] = listed()['machines'] as Record<string, unknown>[];
const machine = (name: string, state: string, ready = state === 'RUNNING'): unknown => ({ ...first, name, host: `playground-${ID}.${name}`, state, ready });

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, answers: [], asked: [], offered: [], cancels: false });
});

describe('a stopped machine of a running playground', () => {
  it('does not keep it starting', () => {
    expect(condition(one({ machines: [machine('a', 'RUNNING'), machine('b', 'STOPPED')] }))).toBe('up');
    expect(condition(one({ machines: [machine('a', 'STOPPING')] }))).toBe('up');
    expect(condition(one({ machines: [machine('a', 'STARTING'), machine('b', 'STOPPED')] }))).toBe('starting');
    expect(condition(one({ machines: [machine('a', 'REBOOTING')] }))).toBe('starting');
  });

  it('can be started, and others can be stopped', () => {
    const it = binary('/nowhere');
    const watch = new Watch(it, () => undefined);
    const tree = treeOf(it, watch);
    const item = (...machines: unknown[]) => {
      const playground = one({ machines });
      const [of] = playground.machines;
      if (!of) throw new Error();
      return tree.getTreeItem({ kind: 'machine', playground, machine: of });
    };
    expect(item(machine('a', 'STOPPED'))).toMatchObject({ description: 'laborant · stopped', contextValue: 'machine.off', iconPath: { id: 'server' } });
    expect(item(machine('a', 'REBOOTING', false))).toMatchObject({ description: 'laborant · rebooting', contextValue: 'machine.up', iconPath: { id: 'loading~spin' } });
    expect(item(machine('a', 'RUNNING', false))).toMatchObject({ description: 'laborant · booting', contextValue: 'machine.up' });
    expect(menuOf('machine.off')).toEqual(['startMachine', 'startMachine', 'console', 'copySsh']);
    expect(menuOf('machine.up', '3')).toEqual(['reboot', 'stopMachine', 'console', 'journal', 'connectionLog']);
    expect(menuOf('machine.down', '3')).toEqual([]);
  });
});

it('the actions on a machine run the binary', async () => {
  const { does, runs } = acting([listed({ machines: [machine('a', 'RUNNING'), machine('b', 'RUNNING')] })]);
  const playground = one({ machines: [machine('a', 'RUNNING'), machine('b', 'RUNNING')] });
  const node: Node = { kind: 'machine', playground, machine: playground.machines[1] as (typeof playground.machines)[number] };
  await does['playgrounds.reboot'](node);
  await does['playgrounds.stopMachine'](node);
  await does['playgrounds.startMachine'](node);
  user.answers = ['a'];
  await does['playgrounds.reboot'](ID);
  expect(runs().filter((run) => run.startsWith('machine'))).toEqual([
    `machine reboot ${ID} b --json`, `machine stop ${ID} b --json`, `machine restart ${ID} b --json`, `machine reboot ${ID} a --json`,
  ]);
  expect(user.asked).toEqual(['Select a machine']);
});

it('the console of a stopped machine is written to the log', async () => {
  const playground = one({ machines: [machine('a', 'STOPPED')] });
  const { does, runs, logged } = acting([listed({ machines: [machine('a', 'STOPPED')] })], { machine: { content: 'a login:' } });
  await does['playgrounds.console']({ kind: 'machine', playground, machine: playground.machines[0] as (typeof playground.machines)[number] });
  expect(runs()).toEqual([`machine console ${ID} a --json`]);
  expect(logged).toEqual(['the console of a\na login:']);
});

it('more time can be entered, as a duration or a time of day', async () => {
  const { does, runs } = acting([listed()]);
  for (const entered of ['2h', ' until 18:00 ']) {
    user.answers = ['Another time...', entered];
    await does['playgrounds.extend'](ID);
  }
  user.answer = '1 hour';
  await does['playgrounds.extend'](ID);
  expect(runs().filter((run) => run.startsWith('extend'))).toEqual([`extend ${ID} 2h --json`, `extend ${ID} until 18:00 --json`, `extend ${ID} 60 --json`]);
});

describe('package.json', () => {
  const hidden = new Set(manifest.contributes.menus.commandPalette.filter((one) => one.when === 'false').map((one) => one.command));
  const shown = manifest.contributes.commands.map((one) => one.command).filter((name) => !hidden.has(name));

  it('has nothing in the palette that needs a node of the tree', async () => {
    for (const command of shown) {
      const { does } = acting([listed({ state: 'STOPPED' }), listed({ id: 'f'.repeat(24), title: 'Two' })]);
      Object.assign(user, { asked: [] });
      // Each does something or asks. Some need more of VS Code than the fake has.
      await Promise.resolve().then(() => does[command as keyof typeof does]()).catch(() => user.asked.push('failed'));
      const acts = ['playgrounds.refresh', 'playgrounds.clearFilter', 'playgrounds.report', 'playgrounds.walkthrough', 'playgrounds.configureSsh', 'playgrounds.login', 'playgrounds.log', 'playgrounds.install', 'playgrounds.settings', 'playgrounds.doctor'];
      expect(user.asked.length > 0 || acts.includes(command), command).toBe(true);
    }
  });

  it('names an icon for each command with a button', () => {
    const buttons = manifest.contributes.menus['view/item/context'].filter((one) => one.group.startsWith('inline'));
    for (const { command } of buttons) {
      expect(manifest.contributes.commands.find((one) => one.command === command)?.icon, command).toMatch(/^\$\([a-z-]+\)$/);
    }
  });
});

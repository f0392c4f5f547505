// The end of a playground's time: stopped, or erased.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import manifest from '../../package.json';
import { MAKE_PERSISTENT } from '../../src/commands';
import { StatusBar, render } from '../../src/statusbar';
import { Watch } from '../../src/watch';
import * as format from '../../src/format';
import { bar, user } from './vscode';
import { acting, binary, listed, one, program, treeOf, until } from './world';

const ID = '0123456789abcdef01234567';
const IDLE = { sent: 0, received: 0 };

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, asked: [], offered: [], cancels: false });
});

it('is known only where the binary says it', () => {
  const values = [undefined, null, true, false, 'true', 1].map((persistent) => one({ persistent }).persistent);
  expect(values).toEqual([undefined, undefined, true, false, undefined, undefined]);
});

it('is a predicate', () => {
  const end = (more: Record<string, unknown>): string => format.end(one(more, 0), 0);
  expect(end({ persistent: true })).toBe('will be stopped in 1h 05m');
  expect(end({ persistent: false })).toBe('will be erased in 1h 05m');
  expect(end({})).toBe('ends in 1h 05m and will be erased unless it is persistent');
  expect(end({ persistent: false, expiresIn: 0 })).toBe('');
  for (const state of ['STOPPED', 'DESTROYED']) expect(end({ persistent: false, state })).toBe('');
});

describe('a tooltip shows it, with the ways to prevent it', () => {
  it('in the status bar', () => {
    const tooltip = (more: Record<string, unknown>): string => render(one(more, 0), IDLE, false, 0).tooltip.split('\n').at(-1) ?? '';
    expect(tooltip({ persistent: true })).toBe('It will be stopped in 1h 05m. Click to extend it.');
    expect(tooltip({ persistent: false })).toBe(`It will be erased in 1h 05m. Click to extend it, or run "Playgrounds: ${MAKE_PERSISTENT}".`);
    expect(tooltip({})).toContain('will be erased unless it is persistent. Click to extend it, or run "Playgrounds: Make Persistent".');
    expect(tooltip({ state: 'STOPPED' })).toBe('0 connections');
  });

  it('in the tree', async () => {
    const all = [true, false, undefined].map((persistent, i) => listed({ id: `${i}`, persistent }));
    const it = binary(program(`echo '${JSON.stringify(all)}'`));
    const watch = new Watch(it, () => undefined);
    await watch.fetch();
    const tree = treeOf(it, watch);
    const items = tree.getChildren().map((node) => tree.getTreeItem(node));
    const tooltips = items.map((item) => (item.tooltip as { value: string }).value.split('\n')[2]);
    expect(tooltips).toEqual([
      'It will be stopped in 1h 05m. Use "Extend" for more time.',
      `It will be erased in 1h 05m. Use "Extend" for more time, or "${MAKE_PERSISTENT}".`,
      `It ends in 1h 05m and will be erased unless it is persistent. Use "Extend" for more time, or "${MAKE_PERSISTENT}".`,
    ]);
    expect(items[1]?.accessibilityInformation?.label).toBe('Compose trial, docker · running · 1h 05m left, will be erased in 1h 05m');
    expect(items.map((item) => item.contextValue)).toEqual(['playground.up.persistent', 'playground.up', 'playground.up']);
  });
});

describe('making a playground persistent', () => {
  it('is in the menu of playgrounds that can be erased', () => {
    const keep = manifest.contributes.commands.find(({ command }) => command === 'playgrounds.persist');
    expect(keep?.title).toBe(MAKE_PERSISTENT);
    const [entry, ...others] = manifest.contributes.menus['view/item/context'].filter(({ command }) => command === 'playgrounds.persist');
    expect(others).toEqual([]);
    const regex = new RegExp(/viewItem =~ \/(.*)\/$/.exec(entry?.when ?? '')?.[1] ?? '$^');
    const values = ['playground.up', 'playground.up.starting', 'playground.up.persistent', 'playground.up.starting.persistent', 'playground.down', 'machine.up', 'noSsh'];
    expect(values.filter((value) => regex.test(value))).toEqual(['playground.up', 'playground.up.starting']);
  });

  it('runs the binary', async () => {
    const { does, runs } = acting([listed({ persistent: false })]);
    await does['playgrounds.persist'](ID);
    expect(runs()).toContain(`persist ${ID} --json`);
    expect(user.asked).toEqual(['Compose trial is persistent now: it will be stopped, not erased, when its time is up']);
  });

  it('is offered for running playgrounds that are not persistent', async () => {
    const { does } = acting([
      listed({ id: 'a', title: 'Kept', persistent: true }),
      listed({ id: 'b', title: 'Stopped', state: 'STOPPED' }),
      listed({ id: 'c', title: 'Short-lived', persistent: false }),
      listed({ id: 'd', title: 'Unknown' }),
    ]);
    await does['playgrounds.persist']();
    expect(user.offered).toEqual(['Short-lived', 'Unknown']);
  });

  it('and extending it say what happens otherwise', async () => {
    const { does } = acting([listed({ persistent: false })]);
    await does['playgrounds.extend'](ID);
    expect(user.asked).toEqual(['Select how much time to add to Compose trial. It will be erased in 1h 05m.']);
  });
});

describe('a playground\'s window', () => {
  const ends: (() => void)[] = [];
  afterEach(() => {
    for (const end of ends.splice(0)) end();
  });

  /** A playground's window, for which the binary prints these lists one after the other. */
  async function inside(...lines: unknown[][]): Promise<{ acted: string[] }> {
    const said = lines.map((playgrounds) => `echo '${JSON.stringify({ type: 'playgrounds', playgrounds })}'`);
    const watch = new Watch(binary(program(`${said.join('\nsleep 0.1\n')}\nexec sleep 1000`)), () => undefined);
    const acted: string[] = [];
    const act = (command: string, id: string): Promise<void> => Promise.resolve(void acted.push(`${command} ${id}`));
    let changes = 0;
    watch.onDidChange(() => changes++);
    const status = new StatusBar(`playground-${ID}`, watch, act);
    ends.push(() => { status.dispose(); watch.dispose(); });
    await until(() => changes === lines.length);
    return { acted };
  }

  it.each([
    [true, 'Compose trial will be stopped in 9m. Extend it for more time.', ['Extend']],
    [false, 'Compose trial will be erased in 9m. Extend it for more time, or make it persistent to keep it.', ['Extend', 'Make Persistent']],
    [undefined, 'Compose trial ends in 9m and will be erased unless it is persistent. Extend it for more time, or make it persistent to keep it.', ['Extend', 'Make Persistent']],
  ])('warns of its end (persistent: %s)', async (persistent, message, buttons) => {
    await inside([listed({ expiresIn: 570, persistent })]);
    expect([user.asked, user.offered]).toEqual([[message], buttons]);
    expect(bar.shown).toBe(true);
  });

  it('is made persistent or extended by a click', async () => {
    for (const [answer, command] of [['Make Persistent', 'persist'], ['Extend', 'extend']] as const) {
      user.answer = answer;
      const { acted } = await inside([listed({ expiresIn: 570 })]);
      await until(() => acted.length > 0);
      expect(acted).toEqual([`playgrounds.${command} ${ID}`]);
    }
  });

  it('reports its end', async () => {
    const last = async (first: Record<string, unknown>, ...then: unknown[]): Promise<string | undefined> => {
      await inside([listed({ persistent: false, ...first })], then);
      return user.asked.at(-1);
    };
    expect(await last({ expiresIn: 20 })).toBe('Compose trial was erased because its time was up.');
    expect(await last({ expiresIn: 20, persistent: undefined })).toBe('Compose trial was erased because its time was up.');
    expect(await last({})).toBe('Compose trial was destroyed.');
    expect(await last({}, listed({ state: 'FAILED' }))).toBe('Compose trial has failed.');
    expect(await last({ persistent: true, expiresIn: 20 }, listed({ state: 'STOPPED' }))).toBe('Compose trial has stopped. Its disks are kept.');
    expect(user.offered).toEqual(['Start and Reload Window']);
  });
});

// The init tasks of a playground.

import { beforeEach, describe, expect, it } from 'vitest';
import { prewake } from '../../src/prewake';
import type { Tree } from '../../src/tree';
import { Watch } from '../../src/watch';
import { failedTasks, pendingTasks } from '../../src/playground';
import * as format from '../../src/format';
import { user } from './vscode';
import { acting, binary, listed, menuOf, one, program, treeOf, until } from './world';

const ID = '0123456789abcdef01234567';
const task = (name: string, status: string, more = {}): unknown => ({ name, init: true, helper: false, status, ...more });
const three = (...statuses: string[]): Record<string, unknown> => {
  const done = statuses.filter((status) => status === 'completed').length;
  return { initTasks: { done, total: statuses.length }, tasks: statuses.map((status, i) => task(`init_${i}`, status)) };
};

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, asked: [], offered: [], cancels: false });
});

describe('tasks in JSON', () => {
  it('are read leniently', () => {
    for (const tasks of [undefined, null, 7, {}, []]) expect(one({ tasks }).tasks).toEqual([]);
    expect(one({ tasks: [null, {}, { name: 7 }, { name: 'a' }, task('b', 'dreaming', { init: 1, helper: null })] }).tasks).toEqual([
      { name: 'a', init: false, helper: false, status: 'unknown' },
      { name: 'b', init: false, helper: false, status: 'unknown' },
    ]);
    const statuses = ['none', 'created', 'blocked', 'running', 'failed', 'completed', 'unknown'];
    expect(one({ tasks: statuses.map((status) => task('a', status)) }).tasks.map((each) => each.status)).toEqual(statuses);
  });

  it('are pending until all init tasks have completed', () => {
    const names = (more: Record<string, unknown>): string[] => pendingTasks(one(more)).map((each) => each.name);
    expect(names(three('completed', 'running', 'blocked'))).toEqual(['init_0', 'init_1', 'init_2']);
    expect(names(three('completed', 'failed'))).toEqual(['init_0', 'init_1']);
    expect(names(three('completed', 'completed'))).toEqual([]);
    expect(names({ tasks: [task('verify', 'running', { init: false })] })).toEqual([]);
    expect(names({ ...three('running'), state: 'STARTING' })).toEqual(['init_0']);
    for (const state of ['STOPPED', 'STOPPING', 'DESTROYED', 'FAILED']) expect(names({ ...three('failed'), state })).toEqual([]);
  });

  it('have failed when none is running any more', () => {
    const names = (more: Record<string, unknown>): string[] => failedTasks(one(more)).map((each) => each.name);
    expect(names(three('failed', 'running'))).toEqual([]);
    expect(names(three('failed', 'blocked', 'failed', 'completed'))).toEqual(['init_0', 'init_2']);
    expect(names({ ...three('failed'), state: 'STOPPED' })).toEqual([]);
  });
});

it('the state of a playground shows its preparation', () => {
  const state = (...statuses: string[]): string => format.state(one(three(...statuses)));
  expect(state('completed', 'running', 'created')).toBe('preparing 1/3');
  expect(state('failed', 'running', 'completed')).toBe('preparing 1/3');
  expect(state('failed', 'blocked', 'completed')).toBe('preparation failed: init_0');
  expect(state('failed', 'failed')).toBe('preparation failed: init_0, init_1');
  expect(state('completed', 'completed')).toBe('running');
  expect(format.state(one({ initTasks: { done: 1, total: 3 }, tasks: null }))).toBe('preparing 1/3');
});

describe('the tree', () => {
  const built = (lines: string): { watch: Watch; tree: Tree } => {
    const it = binary(program(lines));
    const watch = new Watch(it, () => undefined);
    return { watch, tree: treeOf(it, watch) };
  };

  it('shows init tasks before the machines', async () => {
    const all = ['none', 'created', 'blocked', 'running', 'failed', 'completed', 'new'];
    const tasks = [...all.map((status) => task(`t_${status}`, status)), task('verify', 'running', { init: false })];
    const { watch, tree } = built(`echo '${JSON.stringify([listed({ tasks })])}'`);
    await watch.fetch();
    const below = tree.getChildren(tree.getChildren()[0]);
    expect(below.map((node) => node.kind)).toEqual(['tasks', 'machine', 'ports']);
    const [group] = below;
    expect(group && tree.getTreeItem(group)).toMatchObject({ label: 'Tasks', description: '1/8 completed, 1 failed', collapsibleState: 2 });
    // The last one is not an init task: the user solves it.
    const nodes = tree.getChildren(group).slice(0, -1);
    const items = nodes.map((node) => tree.getTreeItem(node));
    expect(items.map((item) => [item.label, item.description, (item.iconPath as { id: string }).id])).toEqual([
      ['t_none', 'not started', 'circle-outline'],
      ['t_created', 'not started', 'circle-outline'],
      ['t_blocked', 'waiting for other tasks', 'circle-outline'],
      ['t_running', 'running', 'loading~spin'],
      ['t_failed', 'failed', 'error'],
      ['t_completed', 'completed', 'pass'],
      ['t_new', 'status unknown', 'question'],
    ]);
    expect(items[3]).toMatchObject({ tooltip: 'Init task t_running: running', accessibilityInformation: { label: 'Init task t_running, running' } });
    expect(new Set(items.map((item) => item.id)).size).toBe(all.length);
    expect(nodes.flatMap((node) => tree.getChildren(node))).toEqual([]);
    for (const value of ['task', 'tasks']) expect(menuOf(value)).toEqual([]);
  });

  it('names a helper', async () => {
    const { watch, tree } = built(`echo '${JSON.stringify([listed({ tasks: [task('a', 'running', { helper: true })] })])}'`);
    await watch.fetch();
    const [node] = tree.getChildren(tree.getChildren(tree.getChildren()[0])[0]);
    expect(node && tree.getTreeItem(node).tooltip).toBe('Helper init task a: running');
  });

  it('changes with them, and drops them when all have completed', async () => {
    const lines = [three('running', 'blocked'), three('completed', 'running'), three('completed', 'completed')];
    const said = lines.map((more) => `sleep 0.1; echo '${JSON.stringify({ type: 'playgrounds', playgrounds: [listed(more)] })}'`);
    const { watch, tree } = built(`${said.join('\n')}\nexec sleep 1000`);
    const seen: string[] = [];
    tree.onDidChangeTreeData(() => {
      const below = tree.getChildren(tree.getChildren()[0]).flatMap((node) => (node.kind === 'tasks' ? tree.getChildren(node) : [node]));
      const items = below.filter((node) => node.kind !== 'ports').map((node) => tree.getTreeItem(node));
      seen.push(items.map((item) => `${item.label as string} ${item.description as string}`).join(', '));
    });
    watch.hold();
    await until(() => seen.length === 3);
    watch.dispose();
    expect(seen).toEqual([
      'init_0 running, init_1 waiting for other tasks, docker-01 laborant · running',
      'init_0 completed, init_1 running, docker-01 laborant · running',
      'docker-01 laborant · running',
    ]);
  });
});

describe('opening waits for init tasks', () => {
  const started = async (more: Record<string, unknown>): Promise<string | undefined> => {
    const { does, runs } = acting([listed(more)]);
    await does['playgrounds.open'](ID);
    return runs().find((run) => run.startsWith('start'));
  };

  it('unless one has failed', async () => {
    expect(await started({})).toBe(`start ${ID} --json`);
    expect(await started(three('completed', 'running'))).toBe(`start ${ID} --json`);
    expect(await started(three('failed', 'running'))).toBe(`start ${ID} --json`);
    expect(await started(three('completed', 'failed'))).toBe(`start ${ID} --json --no-wait-init`);
    expect(await started({ ...three('completed', 'failed'), state: 'STOPPED' })).toBe(`start ${ID} --json`);
  });

  it('and so does starting, which reports a failed one', async () => {
    const catalog = [{ name: 'docker', title: 'Docker', owner: '' }];
    for (const [more, told] of [
      [{}, 'Compose trial is running.'],
      [three('failed'), 'Compose trial is running, but its preparation failed: init_0.'],
    ] as const) {
      const { does } = acting([listed(more)], { catalog });
      user.answer = 'Docker';
      await does['playgrounds.start']();
      expect(user.asked.at(-1)).toBe(told);
    }
  });

  it('in a restored window, too', async () => {
    const machines = (listed()['machines'] as object[]).map((machine) => ({ ...machine, ready: false }));
    const { binary: it, watch, runs } = acting([listed({ ...three('failed'), machines })]);
    await prewake(it, watch, `playground-${ID}`);
    expect(runs().at(-1)).toBe(`start playground-${ID} --json --no-wait-init`);
  });
});

// Learning content: its tasks, the message when a challenge is solved, the start by a page address, the end of an attempt.

import { beforeEach, describe, expect, it } from 'vitest';
import { contentAt, webAddress } from '../../src/actions/address';
import * as format from '../../src/format';
import { isSolved, shownTasks } from '../../src/playground';
import { Solved } from '../../src/solved';
import { Watch } from '../../src/watch';
import { user } from './vscode';
import { acting, binary, listed, one, program, treeOf, until } from './world';

const ID = '0123456789abcdef01234567';
const PAGE = 'https://labs.example.org/challenges/docker-run';
const learning = { kind: 'challenge', name: 'docker-run', title: 'Run a container', pageUrl: PAGE };
const task = (name: string, status: string, more = {}): unknown => ({ name, init: false, helper: false, status, ...more });
const init = (status: string): unknown => task('prepare', status, { init: true });
const helper = (status: string): unknown => task('helper', status, { helper: true });
const challenge = (...tasks: unknown[]): Record<string, unknown> => listed({ learning, tasks });

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, answers: [], asked: [], offered: [], cancels: false, opened: [], typed: '' });
});

describe('learning content in JSON', () => {
  it('is read leniently', () => {
    expect(one({ learning }).learning).toEqual(learning);
    expect(one({ learning: { kind: 'lesson' } }).learning).toEqual({ kind: 'lesson', name: '', title: '', pageUrl: '' });
    for (const other of [undefined, null, 7, {}, { kind: 'quiz' }]) expect(one({ learning: other }).learning).toBeUndefined();
  });

  it('keeps a playground from being found by its catalogue name', () => {
    expect(one({ learning }).ofLesson).toBe(true);
    expect([undefined, null].map((other) => one({ learning: other }).ofLesson)).toEqual([false, false]);
  });
});

describe('the tasks', () => {
  it('are those to solve, and init tasks as long as one is pending', () => {
    const names = (...tasks: unknown[]): string[] => shownTasks(one({ tasks })).map((each) => each.name);
    const [a, b] = [task('a', 'completed'), task('b', 'running')];
    expect(names(init('running'), a, b, helper('running'))).toEqual(['prepare', 'a', 'b']);
    expect(names(init('completed'), a, b)).toEqual(['a', 'b']);
    expect(shownTasks(one({ tasks: [a], state: 'STOPPED' }))).toEqual([]);
  });

  it('are solved when all have completed, apart from helpers', () => {
    const solved = (...tasks: unknown[]): boolean => isSolved(one({ tasks }));
    expect(solved()).toBe(false);
    expect(solved(task('a', 'completed'), helper('running'))).toBe(true);
    expect(solved(task('a', 'completed'), init('running'))).toBe(false);
    expect(solved(task('a', 'completed'), task('b', 'failed'))).toBe(false);
    expect(solved(helper('completed'))).toBe(false);
  });

  it('are counted in the tree', async () => {
    const watch = new Watch(binary(program(`cat <<'E'\n${JSON.stringify([challenge(task('a', 'completed'), task('b', 'running'))])}\nE`)), () => undefined);
    await watch.fetch();
    const it = binary('/nowhere');
    const tree = treeOf(it, watch);
    const [node] = tree.getChildren();
    expect(node && tree.getTreeItem(node).description).toMatch(/^challenge · running · 1\/2 tasks · 1h 05m left$/);
    const [group] = tree.getChildren(node);
    expect(group && tree.getTreeItem(group)).toMatchObject({ label: 'Tasks', description: '1/2 completed', iconPath: { id: 'checklist' } });
    const items = tree.getChildren(group).map((each) => tree.getTreeItem(each));
    expect(items.map((item) => [item.label, (item.iconPath as { id: string }).id])).toEqual([['a', 'pass'], ['b', 'circle-large-outline']]);
    expect(items.map((item) => item.tooltip)).toEqual(['Task a: completed', 'Task b: to do']);
    expect(format.solved(one())).toBe('');
  });
});

describe('a solved challenge', () => {
  /** The messages after these lists, one after the other. */
  async function messages(...lists: unknown[][]): Promise<string[]> {
    const said = lists.map((playgrounds) => `cat <<'E'\n${JSON.stringify({ type: 'playgrounds', playgrounds })}\nE`);
    const watch = new Watch(binary(program(`${said.join('\n')}\nexec sleep 1000`)), () => undefined);
    let changes = 0;
    const opened: string[] = [];
    const solved = new Solved(watch, (id) => Promise.resolve(void opened.push(id)));
    watch.onDidChange(() => changes++);
    watch.hold();
    await until(() => changes === lists.length);
    solved.dispose();
    watch.dispose();
    return [...user.asked, ...opened];
  }
  const [open, done] = [challenge(task('a', 'running')), challenge(task('a', 'completed'))];

  it('is reported once, with its page', async () => {
    user.answer = 'Open Page';
    expect(await messages([open], [done], [done], [open], [done])).toEqual(['You have solved the challenge Run a container.', ID]);
    expect(user.offered).toEqual(['Open Page']);
  });

  it('is not reported if it was solved before', async () => {
    expect(await messages([done], [done])).toEqual([]);
    expect(await messages([challenge()], [done])).toEqual([]);
  });

  it('is no other playground', async () => {
    const other = (status: string, more: Record<string, unknown>): unknown => listed({ tasks: [task('a', status)], ...more });
    expect(await messages([other('running', {})], [other('completed', {})])).toEqual([]);
    const tutorial = { learning: { ...learning, kind: 'tutorial' } };
    expect(await messages([other('running', tutorial)], [other('completed', tutorial)])).toEqual([]);
  });

  it('has its own page', async () => {
    const { does } = acting([challenge()]);
    await does['playgrounds.page'](ID);
    expect(user.opened).toEqual([PAGE]);
  });
});

describe('a page address', () => {
  it('names learning content by its path', () => {
    const at = (text: string): unknown => contentAt(new URL(text));
    expect(at(PAGE)).toEqual({ kind: 'challenge', name: 'docker-run' });
    expect(at('http://127.0.0.1:80/tutorials/pods/?a=b#c')).toEqual({ kind: 'tutorial', name: 'pods' });
    expect(at('https://labs.example.org/courses/linux/files/links')).toEqual({ kind: 'lesson', name: 'links' });
    for (const path of ['', '/', '/challenges', '/courses/linux', '/playgrounds/docker']) expect(at(`https://labs.example.org${path}`)).toBeUndefined();
  });

  it('is one of the web', () => {
    expect(webAddress(` ${PAGE}\n`)?.href).toBe(PAGE);
    for (const text of ['', 'docker', 'https://', 'file:///etc/passwd', '--yes', 'https://a b', 'x https://labs.example.org']) expect(webAddress(text)).toBeUndefined();
  });

  it('starts its playground after a question', async () => {
    const { does, runs } = acting([challenge()], { catalog: [{ name: 'docker', title: 'Docker', owner: '' }] });
    user.typed = PAGE;
    user.answer = 'Start the challenge docker-run';
    await does['playgrounds.start']();
    const question = 'Begin an attempt at the challenge docker-run? Its page will show that you have started it, and its playground starts.';
    expect(user.asked.slice(1)).toEqual([question]);
    expect(runs().filter((run) => run.startsWith('start'))).toEqual([]);
    user.answers = ['Start the challenge docker-run', 'Begin Attempt'];
    await does['playgrounds.start']();
    expect(runs()).toContain(`start ${PAGE} --json --yes`);
  });

  it('whose author is not the platform takes a second question', async () => {
    const said = JSON.stringify({ error: { kind: 'refused', message: 'the challenge is by Ada, not by the platform', hint: 'if you trust its author, add --consent' } });
    const { does, runs } = acting([challenge()], { catalog: [] }, `[ "$1" = start ] && [ "$5" != --consent ] && { echo '${said}'; exit 6; }`);
    const begins = ['Start the challenge docker-run', 'Begin Attempt'];
    user.typed = PAGE;
    user.answers = [...begins, undefined];
    await does['playgrounds.start']();
    expect(user.asked.at(-1)).toBe('The challenge is by Ada, not by the platform. Do you trust the author, who decides what runs in the playground?');
    user.answers = [...begins, 'Trust and Start'];
    await does['playgrounds.start']();
    const plain = `start ${PAGE} --json --yes`;
    expect(runs().filter((run) => run.startsWith('start'))).toEqual([plain, plain, `${plain} --consent`]);
    expect(user.asked.at(-1)).toBe('Compose trial is running.');
  });

  it('of something else is left to the binary', async () => {
    const { does, runs } = acting([listed()], { catalog: [] });
    user.typed = 'https://labs.example.org/playgrounds/docker';
    user.answer = `Start ${user.typed}`;
    await does['playgrounds.start']();
    expect(runs()).toContain(`start ${user.typed} --json`);
  });

  it('is offered only while it is in the input', async () => {
    const { does } = acting([listed()], { catalog: [{ name: 'docker', title: 'Docker', owner: '' }] });
    for (const [typed, offered] of [['', ['Docker']], ['dock', ['Docker']], [PAGE, ['Start the challenge docker-run']]] as const) {
      user.typed = typed;
      await does['playgrounds.start']();
      expect(user.offered).toEqual(offered);
    }
  });

  it('cannot be used where the catalogue fails, which is shown', async () => {
    const { does } = acting([listed()], { catalog: 'junk' });
    await expect(does['playgrounds.start']()).rejects.toThrow('cannot read');
  });
});

describe('the stop of an attempt', () => {
  it('is asked for, because it erases the playground', async () => {
    const { does, runs } = acting([challenge()]);
    await does['playgrounds.stop'](ID);
    expect(user.asked).toEqual(['Stop Compose trial? This ends your attempt at the challenge, and its playground will be erased.']);
    expect(runs().some((run) => run.startsWith('stop'))).toBe(false);
    user.answer = 'End Attempt';
    await does['playgrounds.stop'](ID);
    expect(runs()).toContain(`stop ${ID} --yes --json`);
  });

  it('is not asked for elsewhere', async () => {
    const { does, runs } = acting([listed()]);
    await does['playgrounds.stop'](ID);
    expect(user.asked).toEqual([]);
    expect(runs()).toContain(`stop ${ID} --json`);
  });
});

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { Watch } from '../../src/watch';
import { binary, folder, listed, program, until } from './world';

const line = (...playgrounds: unknown[]): string => JSON.stringify({ type: 'playgrounds', playgrounds });
const watches: Watch[] = [];

/** A watch over a program that runs these lines of sh; `$at` is its folder. */
function watching(lines: string): { watch: Watch; at: string; runs: () => string[] } {
  const at = folder();
  const it = binary(program(`at=${at}; echo "$@" >> $at/runs; echo $$ > $at/pid\n${lines}`));
  const watch = new Watch(it, () => undefined);
  watches.push(watch);
  const runs = (): string[] => (existsSync(`${at}/runs`) ? readFileSync(`${at}/runs`, 'utf8').trim().split('\n') : []);
  return { watch, at, runs };
}

const alive = (at: string): boolean => existsSync(`/proc/${readFileSync(path.join(at, 'pid'), 'utf8').trim()}`);

afterEach(() => {
  for (const watch of watches.splice(0)) watch.dispose();
});

describe('a watch', () => {
  it('runs as long as it is held', async () => {
    const { watch, at, runs } = watching(`echo '${line(listed())}'; exec sleep 1000`);
    const [a, b] = [watch.hold(), watch.hold()];
    await until(() => watch.situation.kind === 'known');
    expect(watch.playgrounds.map((one) => one.title)).toEqual(['Compose trial']);
    a.dispose();
    expect(alive(at)).toBe(true);
    b.dispose();
    b.dispose();
    await until(() => !alive(at));
    expect(runs()).toEqual(['list --watch --json']);
  });

  it('asks for figures as long as a holder wants them', async () => {
    const { watch, runs } = watching(`echo '${line()}'; exec sleep 1000`);
    watch.hold();
    await until(() => runs().length === 1);
    const figures = watch.hold(true);
    await until(() => runs().length === 2);
    figures.dispose();
    await until(() => runs().length === 3);
    expect(runs()).toEqual(['list --watch --json', 'list --watch --json --figures', 'list --watch --json']);
  });

  it('puts running ones first, and keeps the last list while the platform cannot be reached', async () => {
    const down = listed({ title: 'Down', state: 'STOPPED' });
    const error = JSON.stringify({ type: 'error', kind: 'network', message: 'no network', hint: 'look at the cable' });
    const { watch } = watching(`echo '${line(down, listed())}'; echo '${error}'; exec sleep 1000`);
    watch.hold();
    await until(() => watch.situation.kind === 'failed');
    expect(watch.playgrounds.map((one) => one.title)).toEqual(['Compose trial', 'Down']);
    expect(watch.situation).toMatchObject({ failure: { kind: 'failed', message: 'no network' } });
  });

  it('is restarted after it ended, but not without a binary', async () => {
    const { watch, at, runs } = watching(`[ -e $at/well ] || exit 1; echo '${line()}'; exec sleep 1000`);
    watch.hold();
    await until(() => watch.situation.kind === 'failed');
    writeFileSync(path.join(at, 'well'), '');
    await until(() => watch.situation.kind === 'known');
    expect(runs().length).toBe(2);

    const missing = new Watch(binary('/nowhere/x'), () => undefined);
    let changes = 0;
    missing.onDidChange(() => changes++);
    missing.hold();
    await until(() => missing.situation.kind === 'failed');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(changes).toBe(1);
    missing.dispose();
  });

  it('ends a process with output that it cannot read', async () => {
    const { watch, at } = watching('echo "<html>"; exec sleep 1000');
    watch.hold();
    await until(() => watch.situation.kind === 'failed' && watch.situation.failure.kind === 'bad-output');
    await until(() => !alive(at));
  });

  it('ignores unknown lines', async () => {
    const { watch } = watching(`echo '{"type":"news"}'; echo '${line()}'; exec sleep 1000`);
    watch.hold();
    await until(() => watch.situation.kind === 'known');
  });

  it('can be cancelled while it lists, and keeps the last list', async () => {
    const { watch, at, runs } = watching(`[ -e $at/hang ] && exec sleep 1000; echo '[]'`);
    await watch.fetch();
    writeFileSync(path.join(at, 'hang'), '');
    const abort = new AbortController();
    const asking = watch.fetch({ signal: abort.signal });
    await until(() => runs().length === 2);
    abort.abort();
    await expect(asking).rejects.toMatchObject({ kind: 'cancelled' });
    expect(watch.situation.kind).toBe('known');
    await until(() => !alive(at));
  });

  it('lists once without a holder', async () => {
    const { watch, runs } = watching(`echo '[${JSON.stringify(listed())}]'`);
    await watch.refresh();
    expect(watch.playgrounds.length).toBe(1);
    expect(runs()).toEqual(['list --json']);
  });
});

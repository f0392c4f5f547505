import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import * as path from 'node:path';
import { describe, expect, it } from 'vitest';
import { MINIMUM, isOlder } from '../../src/binary/version';
import type { Failure } from '../../src/failure';
import { binary, folder, program, until } from './world';

const failure = (work: Promise<unknown>): Promise<Failure> =>
  work.then(
    () => {
      throw new Error('it did not fail');
    },
    (error: unknown) => error as Failure,
  );

describe('finding the binary', () => {
  const env = (PATH: string): { env: NodeJS.ProcessEnv; home: string } => ({ env: { PATH }, home: folder() });

  it('takes the path in the setting, and no other', async () => {
    const there = program('');
    expect(await binary(there, env('')).find()).toBe(there);
    const missing = await failure(binary('/nowhere/x', env(path.dirname(there))).find());
    expect(missing.kind).toBe('no-binary');
    expect(missing.message).toContain('/nowhere/x');
  });

  it('searches PATH, then the folders of installers', async () => {
    const there = program('');
    expect(await binary('', env(path.dirname(there))).find()).toBe(there);
    const world = env('relative:');
    const bin = path.join(world.home, '.cargo', 'bin');
    mkdirSync(bin, { recursive: true });
    const installed = program('', '9.9.9', bin);
    expect(await binary('', world).find()).toBe(installed);
    expect(await binary('~/.cargo/bin/labctl-ssh-proxy', world).find()).toBe(installed);
  });

  it('fails if it is missing, not a program, another program, or too old', async () => {
    const file = path.join(folder(), 'labctl-ssh-proxy');
    writeFileSync(file, 'no program');
    expect((await failure(binary(file).find())).kind).toBe('no-binary');
    expect((await failure(binary(program('', '0.0.9')).usable())).kind).toBe('old-binary');
    expect((await failure(binary(program('', 'what?')).usable())).kind).toBe('bad-output');
    expect((await failure(binary('/bin').find())).kind).toBe('no-binary');
  });

  it('notices that it was replaced', async () => {
    const at = folder();
    const it = binary(program('', '0.0.9', at));
    expect((await failure(it.usable())).kind).toBe('old-binary');
    program('', '9.9.9', at);
    it.recheck();
    expect(await it.usable()).toContain(at);
  });

  it('compares versions as numbers', () => {
    expect(isOlder('0.9.0', '0.10.0')).toBe(true);
    expect(isOlder('1.0.0', '0.10.0')).toBe(false);
    expect(isOlder('0.1.0', '0.1.0')).toBe(false);
  });

  it('supports the version of this repository', () => {
    const cargo = readFileSync(path.join(import.meta.dirname, '../../../Cargo.toml'), 'utf8');
    expect(isOlder(/^version = "(.*)"/m.exec(cargo)?.[1] ?? '', MINIMUM)).toBe(false);
  });
});

describe('running the binary', () => {
  it('returns the output, and reports the progress as it arrives', async () => {
    const progress: string[] = [];
    const it = binary(program('echo "labctl-ssh-proxy: starting" >&2; echo "[1]"; echo "$@"'), { options: () => ['--local'] });
    const out = await it.run(['a', 'b c'], { onProgress: (line) => progress.push(line) });
    expect(out).toBe('[1]\n--local a b c');
    expect(progress).toEqual(['starting']);
  });

  it('ends after the time limit or a cancel, and leaves no process', async () => {
    const at = folder();
    const hangs = binary(program(`echo $$ > ${at}/pid; trap "" INT; sleep 1000 & wait; wait`));
    const hung = await failure(hangs.run(['list'], { limit: 300 }));
    expect(hung.kind).toBe('timeout');
    const pid = readFileSync(`${at}/pid`, 'utf8').trim();
    await until(() => !existsSync(`/proc/${pid}`));

    const abort = new AbortController();
    const cancelled = failure(hangs.run(['start'], { signal: abort.signal }));
    abort.abort();
    expect((await cancelled).kind).toBe('cancelled');
    expect((await failure(hangs.run(['start'], { signal: abort.signal }))).kind).toBe('cancelled');
  });

  it('rejects output that it cannot read', async () => {
    const it = binary(program('echo "<html>"'));
    expect((await failure(it.ask(['list'], (json) => JSON.parse(json) as unknown))).kind).toBe('bad-output');
  });

  it('accepts a report whatever the exit status is', async () => {
    expect(await binary(program('echo bad; exit 7')).run(['doctor'], { anyExit: true })).toBe('bad');
  });
});

import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
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

describe('the program of the extension', () => {
  const old = new Date('2020-01-01');

  /** An extension that brings a program of this version along, and a home without any other. */
  function packed(version: string, home = folder()) {
    const extension = { folder: folder(), version };
    mkdirSync(path.join(extension.folder, 'bin'));
    const brought = program('echo "$@" >> "$HOME/runs"', version, path.join(extension.folder, 'bin'));
    chmodSync(brought, 0o644);
    const world = { env: { PATH: '', HOME: home }, home, platform: 'linux' as const, extension };
    const copy = path.join(home, '.iximiuz/labctl-ssh-proxy/bin/labctl-ssh-proxy');
    return { world, home, brought, copy };
  }

  it('runs from a copy at a path that stays, and comes after an installed one', async () => {
    const { world, home, brought, copy } = packed('1.2.3');
    const one = binary('', world);
    expect(await Promise.all([one.find(), one.usable()])).toEqual([copy, copy]);
    expect(readFileSync(copy)).toEqual(readFileSync(brought));
    expect(statSync(copy).mode & 0o777).toBe(0o755);
    expect(readdirSync(path.dirname(copy))).toEqual(['labctl-ssh-proxy']);
    // Another window does not write it again.
    utimesSync(copy, old, old);
    expect(await binary('', world).find()).toBe(copy);
    expect(statSync(copy).mtime).toEqual(old);
    const installed = path.join(home, '.local/bin');
    mkdirSync(installed, { recursive: true });
    const file = program('', '9.9.9', installed);
    expect(await one.find()).toBe(file);
  });

  it('is updated, but a newer one of another editor stays', async () => {
    const { world, home, copy } = packed('1.2.3');
    await binary('', world).find();
    const newer = packed('1.10.0', home);
    expect(await binary('', newer.world).find()).toBe(copy);
    expect(readFileSync(copy)).toEqual(readFileSync(newer.brought));
    expect(await binary('', world).find()).toBe(copy);
    expect(readFileSync(copy)).toEqual(readFileSync(newer.brought));
    // One that does not run is replaced whatever it is.
    program('', 'what?', path.dirname(copy));
    await binary('', world).usable();
    expect(readFileSync(copy, 'utf8')).toContain('1.2.3');
  });

  it('is copied again if the copy has gone, into the folder that the program would use', async () => {
    const { world } = packed('1.2.3');
    const moved = folder();
    const one = binary('', { ...world, env: { ...world.env, LABCTL_SSH_PROXY_HOME: moved } });
    const copy = path.join(moved, 'bin/labctl-ssh-proxy');
    expect(await one.find()).toBe(copy);
    execFileSync('rm', ['-r', path.dirname(copy)]);
    expect(await one.find()).toBe(copy);
    expect(existsSync(copy)).toBe(true);
  });

  it('is moved aside on Windows, where a running program cannot be replaced', async () => {
    const { world, copy } = packed('1.2.3');
    const windows = { ...world, platform: 'win32' as const };
    const brought = path.join(world.extension.folder, 'bin/labctl-ssh-proxy.exe');
    const update = async (text: string): Promise<string[]> => {
      writeFileSync(brought, text, { mode: 0o755 });
      expect(await binary('', windows).find()).toBe(`${copy}.exe`);
      expect(readFileSync(`${copy}.exe`, 'utf8')).toBe(text);
      return readdirSync(path.dirname(copy)).sort();
    };
    expect(await update('one')).toEqual(['labctl-ssh-proxy.exe']);
    const old = `labctl-ssh-proxy.exe.${process.pid}.old`;
    for (const text of ['two', 'three']) expect(await update(text)).toEqual(['labctl-ssh-proxy.exe', old]);
  });

  it('says why it cannot be copied, and is missing in the package for all platforms', async () => {
    const { world, home } = packed('1.2.3');
    writeFileSync(path.join(home, '.iximiuz'), 'a file');
    const refused = await failure(binary('', world).find());
    expect([refused.kind, refused.message]).toEqual(['no-binary', expect.stringContaining('cannot be copied to')]);
    const without = binary('', { ...world, extension: { folder: folder(), version: '1.2.3' } });
    expect((await failure(without.find())).message).toContain('was not found');
  });

  it('is taken back when the extension is uninstalled, with the lines that name it', async () => {
    const { world, home, copy } = packed('1.2.3');
    const script = path.join(import.meta.dirname, '../../dist/uninstall.js');
    const uninstall = () => execFileSync(process.execPath, [script], { env: { HOME: home, PATH: process.env['PATH'] } });
    const runs = () => (existsSync(path.join(home, 'runs')) ? readFileSync(path.join(home, 'runs'), 'utf8') : '');
    const entries = path.join(path.dirname(path.dirname(copy)), 'ssh_config');
    // Nothing is there to be taken back.
    uninstall();
    await binary('', world).find();
    writeFileSync(entries, 'Host x\n  ProxyCommand /usr/bin/labctl-ssh-proxy connect %h\n');
    uninstall();
    expect([runs(), existsSync(path.dirname(copy))]).toEqual(['', false]);
    await binary('', world).find();
    writeFileSync(entries, `Host x\n  ProxyCommand ${copy} connect %h\n`);
    writeFileSync(path.join(path.dirname(copy), 'mine'), 'a file of the user');
    uninstall();
    expect(runs()).toBe('config-ssh --remove --yes\n');
    expect(readdirSync(path.dirname(copy))).toEqual(['mine']);
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
    // Long enough for the program to have said its number.
    const hung = await failure(hangs.run(['list'], { limit: 3000 }));
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

// Failures of the binary: by the name of their kind in JSON, else by the text of standard error.

import { readFileSync } from 'node:fs';
import * as path from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { COMMANDS, type Command } from '../../src/commands';
import { BINARY_KINDS, PASSING, type Exit, Failure, readFailure } from '../../src/failure';
import { showFailure } from '../../src/messages';
import { PortForwards } from '../../src/portforwards';
import { Watch } from '../../src/watch';
import { user } from './vscode';
import { acting, binary, listed, program, until } from './world';

const ID = '0123456789abcdef01234567';

beforeEach(() => {
  Object.assign(user, { settings: {}, known: {}, answer: undefined, asked: [], offered: [], cancels: false });
});

const json = (kind: string, hint?: string): string => JSON.stringify({ error: { kind, message: `it is ${kind}`, hint } });
const failed = (exit: Partial<Exit>): Failure => readFailure({ lastLine: '', stderr: '', code: 1, signal: null, ...exit });

/** Runs a fake binary with these lines of sh, and returns its failure. */
async function failureOf(lines: string): Promise<Failure> {
  const error: unknown = await binary(program(lines)).run(['stop', ID, '--json']).then(() => undefined, (reason: unknown) => reason);
  if (!(error instanceof Failure)) throw new Error('it did not fail');
  return error;
}

describe('a failure in JSON', () => {
  it('has the kind of its name, whatever the exit status is', () => {
    for (const code of [1, 2, 3, 4, 10, 130]) {
      expect(failed({ code, lastLine: json('not-logged-in', 'log in') })).toMatchObject({ kind: 'not-logged-in', message: 'it is not-logged-in', hint: 'log in' });
      expect(failed({ code, lastLine: json('interrupted') })).toMatchObject({ kind: 'cancelled', hint: '' });
      expect(failed({ code, lastLine: json('refused') })).toMatchObject({ kind: 'failed', message: 'it is refused' });
    }
  });

  it('is a plain one for every other kind, also one that is new', () => {
    const rust = readFileSync(path.join(import.meta.dirname, '../../../src/error.rs'), 'utf8');
    const names = [...rust.matchAll(/Kind::\w+ => "([a-z-]+)"/g)].map(([, name]) => name ?? '');
    expect(names.length).toBeGreaterThan(10);
    for (const name of [...BINARY_KINDS.keys(), ...PASSING]) expect(names).toContain(name);
    for (const name of [...names, 'new', 'constructor', '']) {
      expect(failed({ lastLine: json(name) }).kind).toBe(BINARY_KINDS.get(name) ?? 'failed');
    }
  });

  it('is final unless it may pass by itself, or the process died without a word', () => {
    for (const name of ['refused', 'not-woken', 'not-logged-in', 'program', 'new']) expect(failed({ lastLine: json(name) }).isFinal).toBe(true);
    for (const name of PASSING) expect(failed({ lastLine: json(name) }).isFinal).toBe(false);
    for (const exit of [{ stderr: 'labctl-ssh-proxy: it hurts\n' }, { code: null, signal: 'SIGKILL' as const }, {}]) expect(failed(exit).isFinal).toBe(false);
  });

  it('is not the last news of a machine, after which the process was killed', () => {
    const lastLine = JSON.stringify({ machine: 'docker-01', host: 'h', error: { kind: 'program', message: 'there is no engine' } });
    expect(failed({ lastLine, code: null, signal: 'SIGKILL' })).toMatchObject({ message: 'labctl-ssh-proxy was killed by SIGKILL', isFinal: false });
  });

  it('is read before the text on standard error', async () => {
    const failure = await failureOf(`echo 'labctl-ssh-proxy: waking' >&2; echo '{"id":"x"}'; echo '${json('network', 'look')}'; exit 10`);
    expect(failure).toMatchObject({ kind: 'failed', message: 'it is network', hint: 'look' });
  });

  it('is not read where it is not described', () => {
    for (const lastLine of ['', 'null', '7', '[]', '<html>', '{}', '{"error":null}', '{"error":7}', '{"error":{"kind":"not-logged-in"}}', '{"error":{"message":7}}']) {
      expect(failed({ lastLine, stderr: 'labctl-ssh-proxy: it hurts\n' })).toMatchObject({ kind: 'failed', message: 'it hurts' });
    }
    expect(failed({ lastLine: '{"error":{"message":"m","kind":7,"hint":7}}' })).toMatchObject({ kind: 'failed', message: 'm', hint: '' });
  });
});

describe('a failure without JSON', () => {
  it('is the text of an older binary, and not special', () => {
    const stderr = 'labctl-ssh-proxy: waking x\nlabctl-ssh-proxy: not logged in\nhint: run `login`\n';
    for (const code of [3, 4, 130]) {
      expect(failed({ code, lastLine: 'x is stopped', stderr })).toMatchObject({ kind: 'failed', message: 'not logged in', hint: 'run `login`' });
    }
  });

  it('is the first line of a crash, or of a command line that is not understood', async () => {
    const stderr = "error: invalid value 'x' for '<MINUTES>'\n\nUsage: labctl-ssh-proxy extend\n\nFor more information, try '--help'.\n";
    expect(failed({ code: 2, stderr })).toMatchObject({ kind: 'failed', message: "error: invalid value 'x' for '<MINUTES>'", hint: '' });
    expect(await failureOf("echo 'thread panicked' >&2; echo 'note: run' >&2; exit 101")).toMatchObject({ kind: 'failed', message: 'thread panicked' });
  });

  it('is the exit status where there is no text', () => {
    expect(failed({ code: 3 })).toMatchObject({ kind: 'failed', message: 'labctl-ssh-proxy ended with exit status 3' });
  });

  it('names the signal that killed the process', async () => {
    const failure = await failureOf("echo 'labctl-ssh-proxy: waking' >&2; kill -KILL $$");
    expect(failure).toMatchObject({ kind: 'failed', message: 'labctl-ssh-proxy was killed by SIGKILL' });
  });
});

describe('a binary that is older than the extension', () => {
  const text = 'The installed labctl-ssh-proxy is too old for this: it does not know `ports`. Update it.';

  it('does not know a command or an option, and the user is told to update it', () => {
    const lastLine = JSON.stringify({ error: { kind: 'usage', message: "unrecognized subcommand 'ports'", hint: 'see `labctl-ssh-proxy help`' } });
    expect(failed({ code: 2, lastLine })).toMatchObject({ kind: 'old-binary', text });
    expect(failed({ code: 2, stderr: "error: unrecognized subcommand 'ports'\n\n  tip: see\n" })).toMatchObject({ kind: 'old-binary', text });
    expect(failed({ code: 2, stderr: "error: unexpected argument '--yes' found\n" }).message).toContain('`--yes`');
  });
});

describe('the message about a failure', () => {
  it('has a sentence and a hint', () => {
    const text = (message: string, hint = ''): string => new Failure('failed', message, hint).text;
    expect(text('not logged in', 'run `login`')).toBe('Not logged in. Run `login`.');
    expect(text('playground-x no longer exists')).toBe('playground-x no longer exists.');
    expect(text('labctl-ssh-proxy did not answer in time', '`doctor` helps!')).toBe('labctl-ssh-proxy did not answer in time. `doctor` helps!');
  });

  it('offers a login without one, nothing when it was cancelled, else the log', () => {
    const shown = (lastLine: string): unknown => {
      Object.assign(user, { asked: [], offered: [] });
      showFailure(failed({ lastLine }));
      return [user.asked.length, user.offered];
    };
    expect(shown(json('not-logged-in'))).toEqual([1, ['Log In']]);
    expect(shown(json('interrupted'))).toEqual([0, []]);
    expect(shown(json('host-key'))).toEqual([1, ['Show Log']]);
    expect(shown('')).toEqual([1, ['Show Log']]);
  });
});

describe('a process that prints lines', () => {
  it('ends with the failure in its last one', async () => {
    const it = binary(program(`echo '{"type":"playgrounds","playgrounds":[]}'; echo '${json('not-logged-in')}'; exit 3`));
    const watch = new Watch(it, () => undefined);
    watch.hold();
    await until(() => watch.situation.kind === 'failed');
    expect(watch.situation).toMatchObject({ failure: { kind: 'not-logged-in' } });
    watch.dispose();
  });

  it('has flat lines about failures after which it goes on', async () => {
    const flat = JSON.stringify({ type: 'error', kind: 'not-logged-in', message: 'm', hint: 'h' });
    const watch = new Watch(binary(program(`echo '${flat}'; exec sleep 1000`)), () => undefined);
    watch.hold();
    await until(() => watch.situation.kind === 'failed');
    expect(watch.situation).toMatchObject({ failure: { kind: 'not-logged-in', message: 'm', hint: 'h' } });
    watch.dispose();
  });

  it('and port-forwards show why they ended', async () => {
    const lost: Failure[] = [];
    const listening = '{"event":"listening","forward":0,"address":"127.0.0.1:4321"}';
    const made = (lines: string): PortForwards => new PortForwards(binary(program(lines)), (failure) => lost.push(failure));
    const work = { signal: new AbortController().signal, report: () => undefined };
    await expect(made(`echo '${json('not-logged-in')}'; exit 3`).add(ID, 'm', 80, work)).rejects.toMatchObject({ kind: 'not-logged-in' });
    await made(`echo '${listening}'; sleep 0.1; echo '${json('ended', 'start it')}'; exit 8`).add(ID, 'm', 80, work);
    await until(() => lost.length === 1);
    expect(lost[0]).toMatchObject({ kind: 'failed', message: 'it is ended', hint: 'start it' });
  });
});

it('each command whose failure is read is run with --json', async () => {
  const answers: Partial<Record<Command, string>> = {
    'playgrounds.start': 'Docker',
    'playgrounds.destroy': 'Destroy',
    'playgrounds.extend': '1 hour',
    'playgrounds.rename': 'New',
    'playgrounds.forward': '8080',
    'playgrounds.expose': '8080',
  };
  const { does, runs } = acting([listed()], { catalog: [{ name: 'docker', title: 'Docker', owner: '' }] });
  for (const command of COMMANDS) {
    user.answer = answers[command];
    // Some actions need more of VS Code than the fake has. They fail after they have run the binary.
    await Promise.resolve().then(() => does[command](ID)).catch(() => undefined);
  }
  const plain = runs().filter((run) => !run.split(' ').includes('--json'));
  // A help has no failure.
  expect(plain).toEqual(['logs --help', 'doctor']);
  const names = new Set(runs().map((run) => run.split(' ')[0]));
  expect([...names].sort()).toEqual([
    'catalog', 'config-ssh', 'destroy', 'doctor', 'expose', 'extend', 'list', 'login', 'logs', 'machine', 'persist', 'port-forward', 'rename', 'restart', 'start', 'stop', 'whoami',
  ]);
});

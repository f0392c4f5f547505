// The program that knows everything: where it is, whether it is new enough, and how it is run. No `vscode` in here.

import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import * as os from 'node:os';
import * as path from 'node:path';

/** Its name. */
export const NAME = 'labctl-ssh-proxy';
/** The oldest version that speaks this extension's language; Cargo.toml's is at least this one. */
export const MINIMUM = '0.1.0';
/** It answers in milliseconds, or when the platform does. */
export const ANSWER_MS = 30_000;
/** A process that does not go when asked is made to. */
const MERCY_MS = 2_000;
/** Far more than 500 playgrounds take; junk without a line's end must not fill the memory. */
const MAX_LINE = 16 * 1024 * 1024;
/** No answer is longer, in characters, and no error in lines. */
const MAX_ANSWER = 16 * 1024 * 1024;
const MAX_LINES = 1000;

/** Why something did not work: the binary's own kind where it has said one. */
export type Kind = 'no-binary' | 'old-binary' | 'hung' | 'junk' | 'cancelled' | 'not-logged-in' | 'not-found' | 'failed';

/** A failure as the user sees it: a sentence, and what to do now. */
export class Failure extends Error {
  constructor(
    readonly kind: Kind,
    message: string,
    readonly hint = '',
  ) {
    super(message);
  }

  static from(error: unknown): Failure {
    if (error instanceof Failure) return error;
    return new Failure('failed', error instanceof Error ? error.message : String(error));
  }
}

/** How a command is run. */
export interface Run {
  /** Ends it early. */
  signal?: AbortSignal;
  /** In ms; without it as long as it takes. */
  limit?: number;
  /** Each line of standard error as it comes. */
  onProgress?: (line: string) => void;
  /** Take what it printed whatever its exit status is. */
  anyExit?: boolean;
}

/** A process that goes on saying lines until it is ended. */
export interface Stream {
  end(): void;
}

/** Hears what a {@link Stream} says. */
export interface Listener {
  line(text: string): void;
  /** Not called after `end()`. */
  ended(failure: Failure): void;
}

/** Where the binary is looked for, and how it is run. */
export interface World {
  /** The setting; empty means look for it. */
  configured(): string;
  /** Options that stand before every command. */
  options(): string[];
  log(line: string): void;
  env?: NodeJS.ProcessEnv;
  platform?: NodeJS.Platform;
  home?: string;
}

/** Where installers put programs that an editor started from a dock or a menu does not find in PATH. */
function knownPlaces(platform: NodeJS.Platform, home: string, env: NodeJS.ProcessEnv): string[] {
  if (platform === 'win32') {
    const local = env['LOCALAPPDATA'] ?? path.join(home, 'AppData', 'Local');
    return [path.join(home, '.cargo', 'bin'), path.join(local, 'Programs', NAME), path.join(home, 'scoop', 'shims')];
  }
  return [
    path.join(home, '.cargo', 'bin'),
    path.join(home, '.local', 'bin'),
    path.join(home, 'bin'),
    '/usr/local/bin',
    '/opt/homebrew/bin',
    '/home/linuxbrew/.linuxbrew/bin',
    '/usr/bin',
  ];
}

async function isProgram(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return (await stat(file)).isFile();
  } catch {
    return false;
  }
}

/** Compares two versions `a.b.c`. */
export function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number)) as [number[], number[]];
  for (let i = 0; i < 3; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

/**
 * The failure that standard error tells: its last line of the program's own is the sentence (those before it told the
 * progress), and what to do may follow it.
 */
export function told(stderr: string, code: number | null): Failure {
  const lines = stderr.split(/\r?\n/);
  const at = lines.findLastIndex((line) => line.startsWith(`${NAME}: `));
  const hint = lines.slice(at + 1).find((line) => line.startsWith('hint: '));
  const message = at >= 0 ? lines[at]?.slice(NAME.length + 2) : lines.filter((line) => line.trim() !== '').at(-1);
  const kinds: Partial<Record<number, Kind>> = { 3: 'not-logged-in', 4: 'not-found', 130: 'cancelled' };
  const status = code === null ? 'was killed' : `ended with exit status ${code}`;
  return new Failure(kinds[code ?? -1] ?? 'failed', message ?? `${NAME} ${status}`, hint?.slice('hint: '.length));
}

export class Binary {
  private checked: { file: string; version: Promise<string> } | undefined;
  private readonly running = new Set<ChildProcess>();

  constructor(private readonly world: World) {}

  /** Where it is. Looked up at each call, so that one that was installed meanwhile is found. */
  async find(): Promise<string> {
    const env = this.world.env ?? process.env;
    const platform = this.world.platform ?? process.platform;
    const home = this.world.home ?? os.homedir();
    const configured = this.world.configured().trim().replace(/^~(?=[\\/])/, home);
    if (configured !== '') {
      if (await isProgram(configured)) return configured;
      throw new Failure('no-binary', `${configured} is no program`, 'correct the setting playgrounds.binary');
    }
    const name = platform === 'win32' ? `${NAME}.exe` : NAME;
    const inPath = (env['PATH'] ?? env['Path'] ?? '').split(platform === 'win32' ? ';' : ':');
    for (const folder of [...inPath, ...knownPlaces(platform, home, env)]) {
      // A relative folder of PATH would be one of the workspace's.
      if (path.isAbsolute(folder) && (await isProgram(path.join(folder, name)))) return path.join(folder, name);
    }
    throw new Failure('no-binary', `the program ${NAME} was not found`, 'install it, or name it in playgrounds.binary');
  }

  /** Where it is, if it is new enough. */
  async usable(): Promise<string> {
    const file = await this.find();
    if (this.checked?.file !== file) {
      const version = this.collect(file, ['--version'], { limit: ANSWER_MS });
      this.checked = { file, version };
      // One that could not be asked is asked again.
      version.catch(() => (this.checked = undefined));
    }
    const said = await this.checked.version;
    const version = /(\d+\.\d+\.\d+)/.exec(said)?.[1];
    if (version === undefined) {
      this.recheck();
      throw new Failure('junk', `${file} is not ${NAME}`, 'correct the setting playgrounds.binary');
    }
    if (isOlder(version, MINIMUM)) {
      throw new Failure('old-binary', `${file} is version ${version}, and ${MINIMUM} is needed`, 'update it');
    }
    return file;
  }

  /** Asks for its version anew: it may have been replaced. */
  recheck(): void {
    this.checked = undefined;
  }

  /** Runs a command to its end; gives what it printed. */
  async run(args: string[], how: Run = {}): Promise<string> {
    return this.collect(await this.usable(), [...this.world.options(), ...args], how);
  }

  /** Runs a command that answers in JSON: at once, unless it is said otherwise how it is to be run. */
  async ask<T>(args: string[], read: (json: string) => T, how: Run = { limit: ANSWER_MS }): Promise<T> {
    const said = await this.run(args, how);
    try {
      return read(said);
    } catch {
      throw new Failure('junk', `${NAME} said something that is not understood`, 'see the log');
    }
  }

  /** Starts a command that goes on saying lines. */
  stream(args: string[], listener: Listener): Stream {
    let child: ChildProcess | undefined;
    let over = false;
    const ended = (failure: Failure): void => {
      if (over) return;
      over = true;
      listener.ended(failure);
    };
    this.usable().then(
      (file) => {
        if (over) return;
        child = this.spawn(file, [...this.world.options(), ...args]);
        let stderr = '';
        lines(child.stderr, (line) => {
          stderr = `${stderr}${line}\n`.slice(-8192);
        });
        lines(child.stdout, (line) => {
          if (!over) listener.line(line);
        });
        child.on('error', (error) => {
          ended(Failure.from(error));
        });
        child.on('close', (code) => {
          ended(told(stderr, code));
        });
      },
      (error: unknown) => {
        ended(Failure.from(error));
      },
    );
    return {
      end: () => {
        over = true;
        if (child) terminate(child);
      },
    };
  }

  /** Ends everything that runs. */
  dispose(): void {
    for (const child of this.running) terminate(child);
  }

  private spawn(file: string, args: string[]): ChildProcess {
    this.world.log(`> ${NAME} ${args.join(' ')}`);
    const env = this.world.env ?? process.env;
    const child = spawn(file, args, { env, cwd: os.tmpdir(), stdio: ['ignore', 'pipe', 'pipe'], windowsHide: true });
    this.running.add(child);
    child.on('close', () => this.running.delete(child));
    child.on('error', () => this.running.delete(child));
    return child;
  }

  private collect(file: string, args: string[], how: Run): Promise<string> {
    return new Promise((resolve, reject) => {
      if (how.signal?.aborted) {
        reject(new Failure('cancelled', 'cancelled'));
        return;
      }
      const child = this.spawn(file, args);
      const out: string[] = [];
      const err: string[] = [];
      let early: Failure | undefined;
      const stop = (failure: Failure): void => {
        early ??= failure;
        terminate(child);
        // Its children may keep the pipes open; nobody waits for them.
        settle(() => {
          reject(failure);
        });
      };
      const cancel = (): void => {
        stop(new Failure('cancelled', 'cancelled'));
      };
      const timer =
        how.limit === undefined
          ? undefined
          : setTimeout(() => {
              stop(new Failure('hung', `${NAME} does not answer`, 'run `labctl-ssh-proxy doctor` in a terminal'));
            }, how.limit);
      const settle = (then: () => void): void => {
        clearTimeout(timer);
        how.signal?.removeEventListener('abort', cancel);
        then();
      };
      how.signal?.addEventListener('abort', cancel);
      let size = 0;
      lines(child.stdout, (line) => {
        size += line.length;
        if (size <= MAX_ANSWER) out.push(line);
        else stop(new Failure('junk', `${NAME} says more than any answer of its own`, 'see the log'));
      });
      lines(child.stderr, (line) => {
        if (err.length < MAX_LINES) err.push(line);
        this.world.log(line);
        how.onProgress?.(line.replace(`${NAME}: `, ''));
      });
      child.on('error', (error) => {
        settle(() => {
          reject(early ?? Failure.from(error));
        });
      });
      child.on('close', (code) => {
        settle(() => {
          if (early) reject(early);
          else if (code === 0 || (how.anyExit && code !== null)) resolve(out.join('\n'));
          else reject(told(err.join('\n'), code));
        });
      });
    });
  }
}

function terminate(child: ChildProcess): void {
  if (child.exitCode !== null || child.signalCode !== null) return;
  // What a Ctrl-C would be: it says goodbye in its own way.
  child.kill('SIGINT');
  const timer = setTimeout(() => child.kill('SIGKILL'), MERCY_MS);
  timer.unref();
  child.on('close', () => {
    clearTimeout(timer);
  });
}

function lines(stream: NodeJS.ReadableStream | null, each: (line: string) => void): void {
  let rest = '';
  stream?.setEncoding('utf8');
  stream?.on('data', (chunk: string) => {
    const found = (rest + chunk).split('\n');
    rest = (found.pop() ?? '').slice(-MAX_LINE);
    for (const line of found) each(line.replace(/\r$/, ''));
  });
  stream?.on('end', () => {
    if (rest !== '') each(rest);
    rest = '';
  });
}

// Child processes: `collect` waits for the output of one, `follow` passes it on line by line.

import { type ChildProcess, spawn } from 'node:child_process';
import * as os from 'node:os';
import { Failure, NAME, cancelled, readFailure } from '../failure';

/** The time between SIGINT and SIGKILL. */
const GRACE_MS = 2_000;
/** The longest line in characters, many times the line of 500 playgrounds. The bound keeps output without line ends from filling the memory. */
const MAX_LINE = 16 * 1024 * 1024;
/** The longest output of a command, in characters. */
const MAX_OUTPUT = 16 * 1024 * 1024;
/** The number of lines of standard error that are kept of a command. */
const MAX_ERROR_LINES = 1000;
/** The number of characters of standard error that are kept of a stream, which can run for days. */
const MAX_STREAM_ERROR = 8192;

/** Options of a command that runs to its end. */
export interface Run {
  /** Cancels the command. */
  signal?: AbortSignal;
  /** The time limit in ms; unlimited if undefined. */
  limit?: number;
  /** Receives each line of standard error as it arrives. */
  onProgress?: (line: string) => void;
  /** Accepts the output whatever the exit status is. */
  anyExit?: boolean;
}

/** A process that prints lines until it is ended. */
export interface Stream {
  end(): void;
}

/** The receiver of a {@link Stream}'s lines and of its end. */
export interface Listener {
  /** Called with the number of the process. */
  started?(pid: number): void;
  line(text: string): void;
  /** Called once, unless `end()` was called before. */
  ended(failure: Failure): void;
}

export function start(file: string, args: string[], env: NodeJS.ProcessEnv): ChildProcess {
  return spawn(file, args, { env, cwd: os.tmpdir(), stdio: ['ignore', 'pipe', 'pipe'], windowsHide: true });
}

/** Resolves to the output of a process once it has exited. Terminates it if it is cancelled, takes too long or prints too much. */
export function collect(child: ChildProcess, options: Run, log: (line: string) => void): Promise<string> {
  return new Promise((resolve, reject) => {
    const { signal, limit, onProgress, anyExit = false } = options;
    const stdout: string[] = [];
    const stderr: string[] = [];
    let size = 0;
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', cancel);
    };
    // The process's own children may keep the pipes open, so this rejects without waiting for them.
    const abandon = (failure: Failure): void => {
      settle();
      terminate(child);
      reject(failure);
    };
    const cancel = (): void => {
      abandon(cancelled());
    };
    const expire = (): void => {
      abandon(new Failure('timeout', `${NAME} did not answer in time`, 'run `labctl-ssh-proxy doctor` in a terminal'));
    };
    const timer = limit === undefined ? undefined : setTimeout(expire, limit);
    signal?.addEventListener('abort', cancel);
    readLines(child.stdout, (line) => {
      size += line.length;
      if (size <= MAX_OUTPUT) stdout.push(line);
      else abandon(new Failure('bad-output', `${NAME} printed too much output`, 'see the log'));
    });
    readLines(child.stderr, (line) => {
      if (stderr.length < MAX_ERROR_LINES) stderr.push(line);
      log(line);
      onProgress?.(line.replace(`${NAME}: `, ''));
    });
    child.on('error', (error) => {
      settle();
      reject(Failure.from(error));
    });
    child.on('close', (code, killedBy) => {
      settle();
      if (code === 0 || (anyExit && code !== null)) {
        resolve(stdout.join('\n'));
        return;
      }
      const failure = readFailure({ lastLine: stdout.at(-1) ?? '', stderr: stderr.join('\n'), code, signal: killedBy });
      log(`failed: ${failure.text}`);
      reject(failure);
    });
  });
}

/** Passes the lines of a process to a listener, and then the reason why it ended. */
export function follow(child: ChildProcess, listener: Listener): void {
  let lastLine = '';
  let stderr = '';
  readLines(child.stderr, (line) => {
    stderr = `${stderr}${line}\n`.slice(-MAX_STREAM_ERROR);
  });
  readLines(child.stdout, (line) => {
    lastLine = line;
    listener.line(line);
  });
  child.on('error', (error) => {
    listener.ended(Failure.from(error));
  });
  child.on('close', (code, signal) => {
    listener.ended(readFailure({ lastLine, stderr, code, signal }));
  });
}

/** Terminates a process with SIGINT, so that it can clean up, and kills it if that takes longer than {@link GRACE_MS}. */
export function terminate(child: ChildProcess): void {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGINT');
  const timer = setTimeout(() => child.kill('SIGKILL'), GRACE_MS);
  timer.unref();
  child.on('close', () => {
    clearTimeout(timer);
  });
}

function readLines(stream: NodeJS.ReadableStream | null, onLine: (line: string) => void): void {
  let rest = '';
  stream?.setEncoding('utf8');
  stream?.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = (lines.pop() ?? '').slice(-MAX_LINE);
    for (const line of lines) onLine(line.replace(/\r$/, ''));
  });
  stream?.on('end', () => {
    if (rest !== '') onLine(rest);
    rest = '';
  });
}

// The program that knows everything, found, checked and run. No `vscode` in here.

import type { ChildProcess } from 'node:child_process';
import * as os from 'node:os';
import { type Listener, type Run, type Stream, collect, follow, start, terminate } from './binary/child';
import { type System, locate } from './binary/locate';
import { checkVersion } from './binary/version';
import { Failure, NAME, cancelled } from './failure';

export type { Run, Stream } from './binary/child';

/** The time limit of a command that answers in milliseconds, or when the platform does. */
export const ANSWER_MS = 30_000;

/** The surroundings of the binary: the settings, the log, the system. */
export interface World extends Partial<System> {
  /** The path in the settings; empty means search for it. */
  configured(): string;
  /** Options that stand before every command. */
  options(): string[];
  log(line: string): void;
}

export class Binary {
  private check: { file: string; done: Promise<void> } | undefined;
  private readonly running = new Set<ChildProcess>();

  constructor(private readonly world: World) {}

  /** Finds it. It is searched for at each call, so that one that was installed meanwhile is found. */
  find(): Promise<string> {
    const { env = process.env, platform = process.platform, home = os.homedir() } = this.world;
    return locate(this.world.configured(), { env, platform, home });
  }

  /** Finds it and checks its version. */
  async usable(): Promise<string> {
    const file = await this.find();
    if (this.check?.file !== file) {
      const output = this.collect(file, ['--version'], { limit: ANSWER_MS });
      const done = output.then((text) => {
        checkVersion(file, text);
      });
      this.check = { file, done };
      // A check that failed is repeated the next time.
      done.catch(() => (this.check = undefined));
    }
    await this.check.done;
    return file;
  }

  /** Forgets its version, because it may have been replaced. */
  recheck(): void {
    this.check = undefined;
  }

  /** The program and arguments that run a command, for a terminal. */
  async commandLine(args: string[]): Promise<{ file: string; args: string[] }> {
    return { file: await this.usable(), args: [...this.world.options(), ...args] };
  }

  /** Runs a command to its end and returns its standard output. It needs `--json` for its failure to be known by its kind. */
  async run(args: string[], options: Run = {}): Promise<string> {
    const command = await this.commandLine(args);
    return this.collect(command.file, command.args, options);
  }

  /** Runs a command and reads the JSON that it prints. Without options it has to answer within {@link ANSWER_MS}. */
  async ask<T>(args: string[], read: (json: string) => T, options: Run = { limit: ANSWER_MS }): Promise<T> {
    const output = await this.run(args, options);
    try {
      return read(output);
    } catch {
      throw new Failure('bad-output', `${NAME} said something that is not understood`, 'see the log');
    }
  }

  /** Starts a command that prints lines until it is ended. */
  stream(args: string[], listener: Listener): Stream {
    let child: ChildProcess | undefined;
    let over = false;
    const untilOver: Listener = {
      line: (text) => {
        if (!over) listener.line(text);
      },
      ended: (failure) => {
        if (over) return;
        over = true;
        listener.ended(failure);
      },
    };
    this.commandLine(args).then(
      (command) => {
        if (over) return;
        child = this.start(command.file, command.args);
        follow(child, untilOver);
      },
      (error: unknown) => {
        untilOver.ended(Failure.from(error));
      },
    );
    return {
      end: () => {
        over = true;
        if (child) terminate(child);
      },
    };
  }

  /** Ends all processes that run. */
  dispose(): void {
    for (const child of this.running) terminate(child);
  }

  private start(file: string, args: string[]): ChildProcess {
    this.world.log(`> ${NAME} ${args.join(' ')}`);
    const child = start(file, args, this.world.env ?? process.env);
    this.running.add(child);
    child.on('close', () => this.running.delete(child));
    child.on('error', () => this.running.delete(child));
    return child;
  }

  private async collect(file: string, args: string[], options: Run): Promise<string> {
    // An abort that has happened already is not signalled again.
    if (options.signal?.aborted) throw cancelled();
    return collect(this.start(file, args), options, (line) => {
      this.world.log(line);
    });
  }
}

// The binary, labctl-ssh-proxy: finds, checks and runs it. This part of the extension does not depend on VS Code.

import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import * as os from 'node:os';
import { broughtPath, bundled, copyPath } from './binary/bundled';
import { type Listener, type Run, type Stream, collect, follow, start, terminate } from './binary/child';
import { type Download, type Work, download } from './binary/download';
import { type System, isProgram, locate } from './binary/locate';
import { checkVersion, readVersion } from './binary/version';
import { Failure, NAME, cancelled } from './failure';

export type { Run, Stream } from './binary/child';

/** The time limit of a command that needs milliseconds and at most one answer of the platform. */
export const ANSWER_MS = 30_000;

/** The surroundings of the binary: the settings, the log, the system. */
export interface World extends Partial<System> {
  /** The path in the settings; empty if the binary is to be searched for. */
  configured(): string;
  /** The options that precede every command. */
  options(): string[];
  /** The folder and the version of the extension, whose package may bring the program along. */
  extension?: { folder: string; version: string };
  log(line: string): void;
}

export class Binary {
  private check: { file: string; done: Promise<void> } | undefined;
  /** The copy of the extension's own program. Made once, because a window keeps its version of the extension. */
  private copy: Promise<string | undefined> | undefined;
  private readonly running = new Set<ChildProcess>();

  constructor(private readonly world: World) {}

  /** Finds the binary. Each call searches again, so that the extension notices when it is installed. */
  find(): Promise<string> {
    const { system } = this;
    return locate(this.world.configured(), system, () => this.bundled(system));
  }

  /** Downloads the program to the place of the extension's copy, and returns its path. */
  async download(from: Download, work: Work): Promise<string> {
    const file = await download(from, this.system, (one) => this.versionOf(one), work);
    this.recheck();
    return file;
  }

  /** True for the extension's copy that a download replaces: the package does not bring the program along. */
  isDownload(file: string): boolean {
    const { extension } = this.world;
    return file === copyPath(this.system) && !(extension && existsSync(broughtPath(extension.folder, this.system)));
  }

  /** True if the settings name the program, so that no other one is used. */
  get isConfigured(): boolean {
    return this.world.configured().trim() !== '';
  }

  private get system(): System {
    const { env = process.env, platform = process.platform, home = os.homedir() } = this.world;
    return { env, platform, home };
  }

  private versionOf(file: string): Promise<string | undefined> {
    return this.collect(file, ['--version'], { limit: ANSWER_MS }).then(readVersion, () => undefined);
  }

  private bundled(system: System): Promise<string | undefined> {
    const { extension } = this.world;
    if (extension === undefined) return Promise.resolve(undefined);
    const versionOf = (file: string): Promise<string | undefined> => this.versionOf(file);
    const again = async (made: string | undefined): Promise<string | undefined> =>
      made !== undefined && (await isProgram(made)) ? made : bundled({ ...extension, versionOf }, system);
    // One after the other, because a command and the watch may search at the same time.
    this.copy = Promise.resolve(this.copy).catch(() => undefined).then(again);
    return this.copy;
  }

  /** Finds the binary and checks its version. */
  async usable(): Promise<string> {
    const file = await this.find();
    if (this.check?.file !== file) {
      const output = this.collect(file, ['--version'], { limit: ANSWER_MS });
      const done = output.then((text) => {
        checkVersion(file, text);
      });
      this.check = { file, done };
      // After a failure the next call checks again.
      done.catch(() => (this.check = undefined));
    }
    await this.check.done;
    return file;
  }

  /** Makes the next call check the version again, because the file may have been replaced. */
  recheck(): void {
    this.check = undefined;
  }

  /** Returns the program and the arguments that run a command. */
  async commandLine(args: string[]): Promise<{ file: string; args: string[] }> {
    return { file: await this.usable(), args: [...this.world.options(), ...args] };
  }

  /** Runs a command and returns its standard output. Only a command with `--json` describes the kind of its failure. */
  async run(args: string[], options: Run = {}): Promise<string> {
    const command = await this.commandLine(args);
    return this.collect(command.file, command.args, options);
  }

  /** Runs a command and reads the JSON that it prints. The time limit is {@link ANSWER_MS}, unless there are options. */
  async ask<T>(args: string[], read: (json: string) => T, options: Run = { limit: ANSWER_MS }): Promise<T> {
    const output = await this.run(args, options);
    try {
      return read(output);
    } catch {
      throw new Failure('bad-output', `${NAME} printed output that this extension cannot read`, 'see the log');
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
        if (child.pid !== undefined) listener.started?.(child.pid);
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

  /** Ends all running processes. */
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
    // A signal that is aborted already does not fire again.
    if (options.signal?.aborted) throw cancelled();
    return collect(this.start(file, args), options, (line) => {
      this.world.log(line);
    });
  }
}

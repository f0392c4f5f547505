// A process that prints lines for as long as they are wanted. If it ends before, it is restarted after a pause.

import type { Binary, Stream } from './binary';
import { Failure, NAME } from './failure';

/** The pause before a restart. It doubles each time, up to {@link LONGEST_PAUSE_MS}. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/** The receiver of the lines. */
export interface Receiver {
  /** Returns true for a line that shows that the process works. Throws if it cannot be read. */
  take(line: string): boolean;
  /** Called with the reason whenever the process has ended. Returns false if another one would not help. */
  failed(failure: Failure): boolean;
  log(line: string): void;
}

export class Live {
  private stream: Stream | undefined;
  private timer: NodeJS.Timeout | undefined;
  private pause = FIRST_PAUSE_MS;

  /** `firstLineMs` is the time limit of the first line. */
  constructor(
    private readonly binary: Binary,
    private readonly receiver: Receiver,
    private readonly firstLineMs: number,
  ) {}

  /** Starts the process, in place of the one that runs. */
  start(command: string[]): void {
    this.stop();
    const stream: Stream = this.binary.stream(command, {
      line: (text) => {
        clearTimeout(this.timer);
        this.take(text, stream, command);
      },
      ended: (failure) => {
        this.restart(failure, command);
      },
    });
    this.stream = stream;
    this.timer = setTimeout(() => {
      stream.end();
      this.restart(new Failure('timeout', `${NAME} did not answer in time`, 'run it in a terminal to see why'), command);
    }, this.firstLineMs);
  }

  stop(): void {
    clearTimeout(this.timer);
    this.stream?.end();
    this.stream = undefined;
  }

  /** Makes the next pause the shortest. */
  forgive(): void {
    this.pause = FIRST_PAUSE_MS;
  }

  private take(text: string, stream: Stream, command: string[]): void {
    try {
      if (this.receiver.take(text)) this.forgive();
    } catch {
      this.receiver.log(`cannot read: ${text.slice(0, 500)}`);
      stream.end();
      this.restart(new Failure('bad-output', `${NAME} printed output that this extension cannot read`, 'see the log'), command);
    }
  }

  /**
   * Reports a failure and starts the process after a pause. Without a usable binary, or if the receiver says so, it waits for the
   * next start instead.
   */
  private restart(failure: Failure, command: string[]): void {
    clearTimeout(this.timer);
    this.stream = undefined;
    if (!this.receiver.failed(failure)) return;
    if (failure.kind === 'no-binary' || failure.kind === 'old-binary') return;
    this.timer = setTimeout(() => {
      this.start(command);
    }, this.pause);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
  }
}

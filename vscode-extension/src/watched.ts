// A watch by a process of the binary, for as long as the user has it open on the screen, because each needs a connection to a
// machine.

import type { Binary } from './binary';
import type { Failure } from './failure';
import { Live } from './live';
import { OnScreen, type Opened } from './onscreen';
import type { Playground } from './playground';
import type { Watch } from './watch';

/** The time limit of the first line. A first visit sends a program to the machine. */
const FIRST_LINE_MS = 120_000;

interface Entry<Found> extends Opened {
  command: string[];
  found: Found;
  live: Live;
  /** True while it is to run, as what is on the screen requires. */
  runs: boolean;
  /** True after a final failure. */
  waits: boolean;
  /** The state of what is asked, as the last list has it; undefined without a login. */
  state: string | undefined;
}

export abstract class Watched<Found, News = undefined> extends OnScreen<Entry<Found>, News> {
  constructor(
    private readonly binary: Binary,
    watch: Watch,
    private readonly log: (line: string) => void,
  ) {
    super(watch);
  }

  /** Asks again for what is on the screen. */
  refresh(): void {
    for (const [key, entry] of this.entries) this.restart(key, entry);
  }

  /** Takes a line of the process. Returns true for one that shows that it works. Throws if the line cannot be read. */
  protected abstract take(playground: string, found: Found, line: string): boolean;

  protected abstract fail(playground: string, found: Found, failure: Failure): void;

  /** The keys of what can be asked, each with a state. Another state may mend a final failure. */
  protected abstract states(of: Playground): [key: string, state: string][];

  protected open(key: string, playground: string, command: string[], found: Found, state: string): void {
    const take = (line: string): boolean => this.take(playground, found, line);
    const failed = (failure: Failure): boolean => {
      this.log(failure.text);
      entry.waits = failure.isFinal;
      this.fail(playground, found, failure);
      return !failure.isFinal;
    };
    const live = new Live(this.binary, { take, failed, log: this.log }, FIRST_LINE_MS);
    const entry: Entry<Found> = { playground, shown: true, command, found, live, runs: false, waits: false, state };
    this.entries.set(key, entry);
    this.adjust(key, entry);
  }

  protected override adjust(_: string, entry: Entry<Found>): void {
    const runs = this.isOnScreen(entry);
    if (runs === entry.runs) return;
    entry.runs = runs;
    entry.waits = false;
    if (runs) entry.live.start([...entry.command, '--watch', '--json']);
    else entry.live.stop();
  }

  protected override halt(entry: Entry<Found>): void {
    entry.live.stop();
  }

  /** Starts the process anew, if one is to run. */
  private restart(key: string, entry: Entry<Found>): void {
    entry.live.stop();
    entry.live.forgive();
    entry.runs = false;
    this.adjust(key, entry);
  }

  /** What has been stopped has nothing to be asked. */
  protected override follow(): void {
    const { situation } = this.watch;
    if (situation.kind === 'failed' && situation.failure.kind === 'not-logged-in') for (const entry of this.entries.values()) entry.state = undefined;
    if (situation.kind !== 'known') return;
    const running = new Map(situation.playgrounds.flatMap((one) => this.states(one)));
    for (const [key, entry] of this.entries) {
      const state = running.get(key);
      if (state === undefined) {
        this.forget(key);
      } else if (entry.state !== state) {
        entry.state = state;
        if (entry.waits) this.restart(key, entry);
      }
    }
  }
}

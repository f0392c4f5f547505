// The playgrounds as they are now: `list --watch --json`, which runs only while somebody looks.

import { ANSWER_MS, type Binary, Failure, type Run, type Stream } from './binary';
import { type Playground, inOrder, playgrounds, watchLine } from './wire';

/** What is known. */
export type Situation =
  | { kind: 'loading' }
  | { kind: 'known'; playgrounds: Playground[] }
  /** Why it could not be asked, and what was known before. */
  | { kind: 'failed'; failure: Failure; playgrounds: Playground[] };

/** Something that can be ended. */
export interface Disposable {
  dispose(): void;
}

/** The first line comes as soon as the platform has answered. */
const FIRST_LINE_MS = 30_000;
/** A watch that died is started again after this, then after twice as long, up to a minute. */
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

export class Watch {
  private now: Situation = { kind: 'loading' };
  private readonly listeners = new Set<() => void>();
  private readonly holders = new Set<{ figures: boolean }>();
  private stream: Stream | undefined;
  private timer: NodeJS.Timeout | undefined;
  private pause = FIRST_PAUSE_MS;

  constructor(
    private readonly binary: Binary,
    private readonly log: (line: string) => void,
  ) {}

  get situation(): Situation {
    return this.now;
  }

  /** All playgrounds known, running ones first. */
  get playgrounds(): Playground[] {
    return this.now.kind === 'loading' ? [] : this.now.playgrounds;
  }

  onDidChange(listener: () => void): Disposable {
    this.listeners.add(listener);
    return { dispose: () => this.listeners.delete(listener) };
  }

  /** Somebody looks, until the answer is disposed of; with `figures` also at the traffic of connections. */
  hold(figures = false): Disposable {
    const before = this.wanted();
    const holder = { figures };
    this.holders.add(holder);
    this.follow(before);
    return {
      dispose: () => {
        const held = this.wanted();
        if (this.holders.delete(holder)) this.follow(held);
      },
    };
  }

  /** The command that shows all that those who look want; undefined when nobody does. */
  private wanted(): string[] | undefined {
    const holders = [...this.holders];
    if (holders.length === 0) return undefined;
    const figures = holders.some((one) => one.figures) ? ['--figures'] : [];
    return ['list', '--watch', '--json', ...figures];
  }

  private follow(before: string[] | undefined): void {
    if (String(before) === String(this.wanted())) return;
    this.stop();
    this.start();
  }

  /** Looks anew: a watch is started again; when nobody looks, it is asked once. */
  async refresh(): Promise<void> {
    this.binary.recheck();
    this.pause = FIRST_PAUSE_MS;
    if (this.holders.size > 0) {
      this.stop();
      this.start();
      return;
    }
    await this.look();
  }

  /** Asks once, for those who need to know now. Throws when it cannot be asked. */
  async look(how: Run = {}): Promise<Playground[]> {
    try {
      const found = inOrder(await this.binary.ask(['list', '--json'], playgrounds, { limit: ANSWER_MS, ...how }));
      this.become({ kind: 'known', playgrounds: found });
      return found;
    } catch (error) {
      const failure = Failure.from(error);
      if (failure.kind !== 'cancelled') this.become({ kind: 'failed', failure, playgrounds: this.playgrounds });
      throw failure;
    }
  }

  /** After something was done while nobody watches, the badge is brought up to date. */
  async done(): Promise<void> {
    if (this.holders.size === 0) await this.look().catch(() => undefined);
  }

  dispose(): void {
    this.holders.clear();
    this.stop();
    this.listeners.clear();
  }

  private start(): void {
    clearTimeout(this.timer);
    const command = this.wanted();
    if (!command) return;
    const stream: Stream = this.binary.stream(command, {
      line: (text) => {
        this.heard(text, stream);
      },
      ended: (failure) => {
        this.again(failure);
      },
    });
    this.stream = stream;
    this.timer = setTimeout(() => {
      stream.end();
      this.again(new Failure('hung', 'labctl-ssh-proxy does not answer', 'run it in a terminal to see why'));
    }, FIRST_LINE_MS);
  }

  private stop(): void {
    clearTimeout(this.timer);
    this.stream?.end();
    this.stream = undefined;
  }

  private heard(text: string, stream: Stream): void {
    clearTimeout(this.timer);
    try {
      const line = watchLine(text);
      if (line.type === 'playgrounds') {
        this.pause = FIRST_PAUSE_MS;
        this.become({ kind: 'known', playgrounds: inOrder(line.playgrounds) });
      } else if (line.type === 'error') {
        const kind = line.kind === 'not-logged-in' ? 'not-logged-in' : 'failed';
        const failure = new Failure(kind, line.message, line.hint);
        this.become({ kind: 'failed', failure, playgrounds: this.playgrounds });
      }
    } catch {
      this.log(`not understood: ${text.slice(0, 500)}`);
      stream.end();
      this.again(new Failure('junk', 'labctl-ssh-proxy said something that is not understood', 'see the log'));
    }
  }

  /** It died, or was ended because it was of no use. What cannot get better by itself is not tried again. */
  private again(failure: Failure): void {
    clearTimeout(this.timer);
    this.stream = undefined;
    this.become({ kind: 'failed', failure, playgrounds: this.playgrounds });
    if (failure.kind === 'no-binary' || failure.kind === 'old-binary') return;
    this.timer = setTimeout(() => {
      this.start();
    }, this.pause);
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE_MS);
  }

  private become(situation: Situation): void {
    this.now = situation;
    if (situation.kind === 'failed') this.log(`${situation.failure.message}. ${situation.failure.hint}`);
    for (const listener of this.listeners) listener();
  }
}

// The ports of playgrounds, from `ports --json`. Each run makes the platform scan the machines, so a playground is scanned only
// while its ports are on the screen.

import { ANSWER_MS, type Binary } from './binary';
import { Failure } from './failure';
import { readPorts } from './json';
import { OnScreen, type Opened } from './onscreen';
import type { Watch } from './watch';

/** An address at which the platform serves a port. */
export interface Exposure {
  id: string;
  url: string;
  /** `private`, for the logged-in user only, or `public`. */
  access: string;
}

export type Protocol = 'http' | 'https' | 'tcp';

export interface Port {
  machine: string;
  number: number;
  /** Undefined if the scan has not told. */
  protocol: Protocol | undefined;
  listening: boolean | undefined;
  /** True if a scan found it on the loopback interface only, where the platform does not reach it. */
  loopbackOnly: boolean;
  exposures: Exposure[];
  /** The port-forwards to it from this computer, by any process. */
  forwards: { local: string; pid: number }[];
  /** The local addresses of its port-forwards that are saved on the platform. */
  saved: string[];
}

/** A web terminal that the platform serves. */
export interface Shell {
  id: string;
  machine: string;
  user: string;
  access: string;
  url: string;
}

export interface PortList {
  ports: Port[];
  shells: Shell[];
  /** What the platform did not tell, one sentence each. */
  problems: string[];
}

/** The result of the last scan, and the last list. */
export interface Scan {
  /** Undefined until the first scan has succeeded. */
  list: PortList | undefined;
  failure: Failure | undefined;
}

/** The pause between two scans. It doubles after each failure, up to {@link LONGEST_PAUSE_MS}. */
export const PAUSE_MS = 15_000;
const LONGEST_PAUSE_MS = 120_000;

/** A playground whose ports have been on the screen. */
interface Entry extends Opened {
  scan: Scan;
  expanded: boolean;
  /** The end of the last scan, in ms since 1970. */
  scannedAt: number;
  pause: number;
  running: AbortController | undefined;
  timer: NodeJS.Timeout | undefined;
}

const NONE: Scan = { list: undefined, failure: undefined };

export class Ports extends OnScreen<Entry> {
  constructor(
    private readonly binary: Binary,
    watch: Watch,
  ) {
    super(watch);
  }

  /** The last scan of a playground. */
  of(id: string): Scan {
    return this.entries.get(id)?.scan ?? NONE;
  }

  /** Notes that the tree shows the ports of a playground. VS Code reports no expansion if it restores one. */
  show(id: string): void {
    if (this.entries.has(id)) this.unfold(id);
    else this.setExpanded(id, true);
  }

  setExpanded(id: string, expanded: boolean): void {
    const entry = this.entries.get(id) ?? add(this.entries, id);
    entry.expanded = expanded;
    this.adjust(id, entry);
  }

  /** Scans a playground now; without an id, all whose ports are on the screen. */
  async refresh(id?: string): Promise<void> {
    const chosen = [...this.entries].filter(([each, entry]) => (id ?? each) === each && this.isOnScreen(entry));
    await Promise.all(chosen.map(([each, entry]) => this.scan(each, entry)));
  }

  protected override isOnScreen(entry: Entry): boolean {
    return entry.expanded && super.isOnScreen(entry);
  }

  /** Plans the next scan of a playground, or none, as what is on the screen requires. A scan that runs goes on. */
  protected override adjust(id: string, entry: Entry): void {
    clearTimeout(entry.timer);
    if (!entry.running && this.isOnScreen(entry)) this.schedule(id, entry);
  }

  private schedule(id: string, entry: Entry): void {
    const kind = entry.scan.failure?.kind;
    // It would fail again until the user has updated the binary and refreshes.
    if (kind === 'old-binary' || kind === 'no-binary') return;
    const wait = entry.scannedAt + entry.pause - Date.now();
    entry.timer = setTimeout(() => void this.scan(id, entry), Math.max(wait, 0));
  }

  private async scan(id: string, entry: Entry): Promise<void> {
    this.halt(entry);
    const abort = new AbortController();
    entry.running = abort;
    const scan = await this.binary.ask(['ports', id, '--json'], readPorts, { signal: abort.signal, limit: ANSWER_MS }).then(
      (list): Scan => ({ list, failure: undefined }),
      (error: unknown): Scan => ({ list: entry.scan.list, failure: Failure.from(error) }),
    );
    if (abort.signal.aborted) return;
    entry.running = undefined;
    entry.scan = scan;
    entry.scannedAt = Date.now();
    entry.pause = scan.failure ? Math.min(entry.pause * 2, LONGEST_PAUSE_MS) : PAUSE_MS;
    this.adjust(id, entry);
    this.tell(undefined);
  }

  protected override follow(): void {
    const { situation } = this.watch;
    if (situation.kind !== 'known') return;
    const running = new Set(situation.playgrounds.filter((one) => one.state === 'RUNNING').map((one) => one.id));
    for (const id of this.entries.keys()) if (!running.has(id)) this.forget(id);
  }

  /** Ends the scan that runs, and the wait for the next one. */
  protected override halt(entry: Entry): void {
    clearTimeout(entry.timer);
    entry.running?.abort();
    entry.running = undefined;
  }
}

function add(entries: Map<string, Entry>, id: string): Entry {
  const entry: Entry = { playground: id, shown: true, scan: NONE, expanded: false, scannedAt: 0, pause: PAUSE_MS, running: undefined, timer: undefined };
  entries.set(id, entry);
  return entry;
}

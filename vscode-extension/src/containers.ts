// The containers of machines, from `containers HOST --watch --json`. A process runs only while a machine is open on the screen,
// because each needs a connection to the machine.

import type { Binary } from './binary';
import type { Failure } from './failure';
import { readContainers } from './json';
import { Live } from './live';
import { type Machine, type Playground, canHaveContainers } from './playground';
import type { Disposable, Watch } from './watch';

export interface ContainerPort {
  /** The port inside. */
  container: number;
  protocol: string;
  /** The address of the machine at which it is published. */
  address: string;
  /** The port there; undefined if it is not published. */
  machine: number | undefined;
}

/** A container, as its engine describes it. The texts are foreign, but without characters that control anything. */
export interface Container {
  id: string;
  name: string;
  /** Its part of the host name. Empty like `host` if it has none. */
  label: string;
  /** The host name for ssh. */
  host: string;
  image: string;
  state: string;
  status: string;
  engine: string;
  /** The pod that owns it. */
  pod: { namespace: string; name: string } | undefined;
  ports: ContainerPort[];
}

/** The containers of a machine, or the reason why they are not known. Both are undefined until the first answer. */
export interface Found {
  list: Container[] | undefined;
  failure: Failure | undefined;
}

/** The time limit of the first line. A first visit sends a program to the machine. */
const FIRST_LINE_MS = 120_000;

/** A machine that the user has opened. */
interface Entry {
  playground: string;
  host: string;
  found: Found;
  live: Live;
  /** True while it is to run, as what is on the screen requires. */
  runs: boolean;
  /** True after a final failure. */
  waits: boolean;
  /** The state of the machine, as the last list has it; undefined without a login. */
  state: string | undefined;
  /** False from the moment at which its playground is collapsed until VS Code asks for its children again. */
  shown: boolean;
}

const keyOf = (playground: string, machine: string): string => `${playground}/${machine}`;

export class Containers implements Disposable {
  private readonly entries = new Map<string, Entry>();
  private readonly listeners = new Set<() => void>();
  private readonly subscription: Disposable;
  private visible = false;

  constructor(
    private readonly binary: Binary,
    private readonly watch: Watch,
    private readonly log: (line: string) => void,
  ) {
    this.subscription = watch.onDidChange(() => {
      this.followStates();
    });
  }

  onDidChange(listener: () => void): Disposable {
    this.listeners.add(listener);
    return { dispose: () => this.listeners.delete(listener) };
  }

  /** The containers of a machine; undefined if the machine is not open. */
  of(playground: string, machine: string): Found | undefined {
    return this.entries.get(keyOf(playground, machine))?.found;
  }

  /** Notes that the user has opened or closed a machine. */
  setExpanded(playground: Playground, machine: Machine, expanded: boolean): void {
    const key = keyOf(playground.id, machine.name);
    const known = this.entries.get(key);
    if (!expanded) {
      known?.live.stop();
      this.entries.delete(key);
    } else if (known) {
      this.show(playground.id, machine.name);
    } else if (canHaveContainers(playground, machine)) {
      const entry = this.entry(playground.id, machine);
      this.entries.set(key, entry);
      this.adjust(entry);
      this.tell();
    }
  }

  /** Notes that the playground itself was collapsed. */
  fold(id: string): void {
    for (const entry of this.entries.values()) if (entry.playground === id) entry.shown = false;
    this.adjustAll();
  }

  /**
   * True if machines of a playground were open when it was collapsed. VS Code does not report whether "Collapse All" has closed
   * them as well, but asks only for the children of those that it shows.
   */
  isFolded(id: string): boolean {
    return [...this.entries.values()].some((entry) => entry.playground === id && !entry.shown);
  }

  /** Notes that VS Code shows the children of a machine. */
  show(playground: string, machine: string): void {
    const entry = this.entries.get(keyOf(playground, machine));
    if (!entry) return;
    entry.shown = true;
    this.adjust(entry);
  }

  setVisible(visible: boolean): void {
    this.visible = visible;
    this.adjustAll();
  }

  /** Asks again for the containers that are on the screen. */
  refresh(): void {
    for (const entry of this.entries.values()) this.restart(entry);
  }

  dispose(): void {
    this.subscription.dispose();
    for (const entry of this.entries.values()) entry.live.stop();
    this.entries.clear();
    this.listeners.clear();
  }

  private entry(playground: string, { host, state }: Machine): Entry {
    const become = (found: Found): void => {
      entry.found = found;
      this.tell();
    };
    const take = (line: string): boolean => {
      const read = readContainers(line);
      if (read) become(read);
      return read?.list !== undefined;
    };
    const failed = (failure: Failure): boolean => {
      this.log(failure.text);
      entry.waits = failure.isFinal;
      become({ list: undefined, failure });
      return !failure.isFinal;
    };
    const live = new Live(this.binary, { take, failed, log: this.log }, FIRST_LINE_MS);
    const found = { list: undefined, failure: undefined };
    const entry: Entry = { playground, host, found, live, runs: false, waits: false, state, shown: true };
    return entry;
  }

  private adjustAll(): void {
    for (const entry of this.entries.values()) this.adjust(entry);
  }

  /** Starts or stops a process, as what is on the screen requires. */
  private adjust(entry: Entry): void {
    const runs = this.visible && entry.shown;
    if (runs === entry.runs) return;
    entry.runs = runs;
    entry.waits = false;
    if (runs) entry.live.start(['containers', entry.host, '--watch', '--json']);
    else entry.live.stop();
  }

  /** Starts the process anew, if one is to run. */
  private restart(entry: Entry): void {
    entry.live.stop();
    entry.live.forgive();
    entry.runs = false;
    this.adjust(entry);
  }

  /** A machine that is stopped, and a playground that is, has nothing to be asked. A change may mend a final failure. */
  private followStates(): void {
    const { situation } = this.watch;
    if (situation.kind === 'failed' && situation.failure.kind === 'not-logged-in') for (const entry of this.entries.values()) entry.state = undefined;
    if (situation.kind !== 'known') return;
    const running = new Map(
      situation.playgrounds.flatMap((one) =>
        one.machines.filter((machine) => canHaveContainers(one, machine)).map(({ name, state }) => [keyOf(one.id, name), state] as const),
      ),
    );
    for (const [key, entry] of this.entries) {
      const state = running.get(key);
      if (state === undefined) {
        entry.live.stop();
        this.entries.delete(key);
      } else if (entry.state !== state) {
        entry.state = state;
        if (entry.waits) this.restart(entry);
      }
    }
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }
}

/** True for a container that can be entered. */
export const canBeEntered = ({ state, host }: Container): boolean => state === 'running' && host !== '';

/** Sorts the containers that no pod owns before the others, running ones first, and then by their names. */
export function inOrder(all: Container[]): Container[] {
  const rank = (of: Container): number => (of.pod ? 2 : 0) + (of.state === 'running' ? 0 : 1);
  const name = ({ name, pod }: Container): string => `${name}\n${pod ? podName(pod) : ''}`;
  return [...all].sort((a, b) => rank(a) - rank(b) || name(a).localeCompare(name(b), 'en', { numeric: true }));
}

export const podName = ({ namespace, name }: NonNullable<Container['pod']>): string => (namespace === '' ? name : `${namespace}/${name}`);

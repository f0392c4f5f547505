// The containers of machines, from `containers HOST --watch --json`.

import type { Failure } from './failure';
import { readContainers } from './json';
import { type Machine, type Playground, canHaveContainers } from './playground';
import { Watched } from './watched';

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

const keyOf = (playground: string, machine: string): string => `${playground}/${machine}`;

export class Containers extends Watched<Found> {
  /** The containers of a machine; undefined if the machine is not open. */
  of(playground: string, machine: string): Found | undefined {
    return this.entries.get(keyOf(playground, machine))?.found;
  }

  /** Notes that the user has opened or closed a machine. */
  setExpanded(playground: Playground, machine: Machine, expanded: boolean): void {
    const key = keyOf(playground.id, machine.name);
    if (!expanded) {
      this.forget(key);
    } else if (this.entries.has(key)) {
      this.unfold(key);
    } else if (canHaveContainers(playground, machine)) {
      this.open(key, playground.id, ['containers', machine.host], { list: undefined, failure: undefined }, machine.state);
      this.tell(undefined);
    }
  }

  /** Notes that VS Code shows the children of a machine. */
  show(playground: string, machine: string): void {
    this.unfold(keyOf(playground, machine));
  }

  protected override take(_: string, found: Found, line: string): boolean {
    const read = readContainers(line);
    if (read) this.become(found, read);
    return read?.list !== undefined;
  }

  protected override fail(_: string, found: Found, failure: Failure): void {
    this.become(found, { list: undefined, failure });
  }

  protected override states(of: Playground): [key: string, state: string][] {
    return of.machines.filter((one) => canHaveContainers(of, one)).map(({ name, state }) => [keyOf(of.id, name), state]);
  }

  private become(found: Found, read: Found): void {
    Object.assign(found, read);
    this.tell(undefined);
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

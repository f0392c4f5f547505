// The remote authority of a window, `ssh-remote+HOST`, as Remote-SSH, open-remote-ssh and their forks write it.

const PREFIX = 'playground-';

/**
 * Reads the host name of a playground, `playground-<id or name>[.<machine>[.<container>]]` or
 * `playground-<id or name>.pod.<namespace>.<pod>[.<container>]`, from a remote authority. A readable one, as `aliases` has it,
 * stands for the name with the id. Returns undefined for any other host.
 * The destination may be plain, `user@host:port`, or hexadecimal JSON, and may follow a dev container's authority.
 */
export function playgroundHost(authority: string, aliases: Aliases = {}): string | undefined {
  const destination = /(?:^|@)ssh-remote\+(.+)$/i.exec(authority)?.[1];
  if (destination === undefined) return undefined;
  const host = hostOf(fromHex(destination) ?? decoded(destination)).replace(/^.*@/, '').replace(/:\d+$/, '');
  return isHost(host) ? host : hostOfAlias(host, aliases);
}

/** The ids of the playgrounds that have readable host names, by these. */
export type Aliases = Record<string, string>;

/** The host name with the id for a readable one, of a playground or of a machine or a container in it. */
function hostOfAlias(host: string, aliases: Aliases): string | undefined {
  const [alias = '', ...rest] = host.split('.');
  const id = Object.hasOwn(aliases, alias) ? aliases[alias] : undefined;
  const named = [`${PREFIX}${id ?? ''}`, ...rest].join('.');
  return id !== undefined && isHost(named) ? named : undefined;
}

const LABEL = '[a-z0-9][a-z0-9_-]*';
const HOST = new RegExp(`^${PREFIX}${LABEL}(\\.${LABEL}){0,2}$`);
/** A pod, or a container in one. */
const POD = new RegExp(`^${PREFIX}${LABEL}\\.pod(\\.${LABEL}){2,3}$`);

/** True for the host name of a playground, a machine, a container or a pod. */
export const isHost = (text: string): boolean => HOST.test(text) || isPodHost(text);

/** True for the host name of a pod, or of a container in one. */
export const isPodHost = (text: string): boolean => POD.test(text);

function fromHex(text: string): string | undefined {
  // 7b is "{". No host name of a playground begins with it.
  if (!/^7b(?:[0-9a-f]{2})+$/i.test(text)) return undefined;
  return Buffer.from(text, 'hex').toString('utf8');
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function hostOf(destination: string): string {
  if (!destination.startsWith('{')) return destination;
  try {
    const { hostName } = JSON.parse(destination) as { hostName?: unknown };
    return typeof hostName === 'string' ? hostName : '';
  } catch {
    return '';
  }
}

/** Splits the host name of a playground into its parts. */
export function parseHost(host: string): { label: string; isId: boolean; machine: string | undefined } {
  const [label = '', next] = host.slice(PREFIX.length).split('.', 2);
  const machine = isPodHost(host) ? undefined : next;
  return { label, isId: /^[0-9a-f]{24}$/.test(label), machine };
}

/** The host name of the machine that a container is on, or of the playground that a pod is in; any other stays what it is. */
export const withoutContainer = (host: string): string => host.split('.', isPodHost(host) ? 1 : 2).join('.');

/** The remote authority of a host. */
export const authorityOf = (host: string): string => `ssh-remote+${host}`;

/**
 * Finds the playground of a host name, by its id or by its catalogue name. `ordered` has running ones first. If several
 * playgrounds have that name, this returns the first; the binary refuses to choose one.
 */
export function findByHost<P extends { id: string; template: { name: string }; ofLesson: boolean }>(host: string, ordered: P[]): P | undefined {
  const { label, isId } = parseHost(host);
  return ordered.find((one) => (isId ? one.id === label : one.template.name === label && !one.ofLesson));
}

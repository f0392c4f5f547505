// Which playground a window is for: `ssh-remote+HOST` as Remote-SSH, open-remote-ssh and their forks write it.

const PREFIX = 'playground-';

/**
 * The host name of a playground in a remote authority, `playground-<id or name>[.<machine>]`; undefined for everything
 * else. The destination may be plain, `user@host:port`, or JSON in hexadecimal digits; a container's authority may
 * stand in front of it.
 */
export function playgroundHost(authority: string): string | undefined {
  const destination = /(?:^|@)ssh-remote\+(.+)$/i.exec(authority)?.[1];
  if (destination === undefined) return undefined;
  const host = hostOf(fromHex(destination) ?? decoded(destination)).replace(/^.*@/, '').replace(/:\d+$/, '');
  return /^playground-[a-z0-9][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*)?$/.test(host) ? host : undefined;
}

function fromHex(text: string): string | undefined {
  // "{" is 7b: no host name of ours begins like this.
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

/** The parts of a playground's host name. */
export function parseHost(host: string): { label: string; isId: boolean; machine: string | undefined } {
  const [label = '', machine] = host.slice(PREFIX.length).split('.', 2);
  return { label, isId: /^[0-9a-f]{24}$/.test(label), machine };
}

/** The authority under which editors open a host. */
export const authorityOf = (host: string): string => `ssh-remote+${host}`;

/**
 * What a host name means among the playgrounds that there are: by id, or the one of that name that is most alive. Where
 * several are, the binary takes none, and says so.
 */
export function findByHost<P extends { id: string; template: { name: string }; ofLesson: boolean }>(host: string, ordered: P[]): P | undefined {
  const { label, isId } = parseHost(host);
  return ordered.find((one) => (isId ? one.id === label : one.template.name === label && !one.ofLesson));
}

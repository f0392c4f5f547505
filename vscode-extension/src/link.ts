// Links to playgrounds, `vscode://ID-OF-THE-EXTENSION/open?playground=&path=&repo=`. They come from strangers, so that each part
// must have a form that means nothing else: to a shell, to git, to the eye. Pure.

import { Failure } from './failure';

export interface Link {
  /** The id of one of the user's playgrounds, or a catalogue name. */
  playground: string;
  isId: boolean;
  /** The folder to open, absolute or below the home folder; empty for the clone or the home folder. */
  path: string;
  /** The address to clone; empty for none. */
  repo: string;
}

/** The longest query. No address and no path that people use comes near. */
const MAX_QUERY = 1500;

const ID = /^[0-9a-f]{24}$/;
const NAME = /^[a-z0-9][a-z0-9-]{0,62}$/;
/** Ordinary names between slashes. None begins with a hyphen, which would make it an option. */
const SEGMENT = '[A-Za-z0-9_.@+,=][A-Za-z0-9_.@+,=~ -]*';
const PATH = new RegExp(`^/?${SEGMENT}(/${SEGMENT})*/?$`);
const REPO_SEGMENT = '[A-Za-z0-9_.~][A-Za-z0-9_.~-]*';
const REPO = new RegExp(`^https://[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?(/${REPO_SEGMENT})+/?$`);

const refused = (why: string): Failure => new Failure('failed', `the link was refused: ${why}`, 'ask its author for a new link');

/** Reads a link. `query` is decoded already, as VS Code passes it. Throws if a part is unknown, missing or malformed. */
export function readLink(address: string, query: string): Link {
  if (address !== '/open') throw refused('it is not a link that opens a playground');
  if (query.length > MAX_QUERY) throw refused('it is too long');
  const parts = new Map<string, string>();
  for (const part of query.split('&').filter((one) => one !== '')) {
    const [, key = '', value = ''] = /^([^=]*)=?(.*)$/s.exec(part) ?? [];
    if (!['playground', 'path', 'repo'].includes(key)) throw refused(`it has the unknown part "${printable(key, 30)}"`);
    if (parts.has(key)) throw refused(`it has the part ${key} twice`);
    parts.set(key, value);
  }
  const { playground, path, repo } = { playground: parts.get('playground') ?? '', path: parts.get('path') ?? '', repo: parts.get('repo') ?? '' };
  const isId = ID.test(playground);
  if (playground === '') throw refused('it names no playground');
  if (!isId && !NAME.test(playground)) throw refused('its playground is neither an id nor a name of the catalogue');
  if (isWorkspaceFile(path)) throw refused('its path is a workspace file, and only a folder is opened');
  if (parts.has('path') && !(PATH.test(path) && hasNoSteps(path))) {
    throw refused('its path has characters or parts that are not allowed; it may have names of letters, digits, spaces and _.@+,=~- between slashes');
  }
  if (parts.has('repo') && !(REPO.test(repo) && hasNoSteps(repo))) throw refused('its repository is not a plain https address');
  if (parts.has('repo') && !isFolder(folderOf(repo))) throw refused(`its repository would become the folder "${folderOf(repo)}" of the machine`);
  return { playground, isId, path, repo };
}

/** True if no part of a path leads up or stays. */
const hasNoSteps = (path: string): boolean => !path.split('/').some((part) => /^\.+$/.test(part));

/** True for a file that VS Code would open as a workspace: it decides which folders and hosts are opened. */
const isWorkspaceFile = (path: string): boolean => /\.code-workspace\/*$/i.test(path);

/** The name of the folder that git would make. */
export const folderOf = (repo: string): string => repo.replace(/\/+$/, '').replace(/^.*\//, '').replace(/\.git$/, '');

/** True for a folder in the home folder that changes nothing there. Programs find others in these, and settings behind dots. */
const isFolder = (name: string): boolean => /^[A-Za-z0-9_]/.test(name) && !['bin', 'go', 'node_modules'].includes(name) && !isWorkspaceFile(name);

/** Writes a link. `scheme` is that of the editor. */
export function writeLink(scheme: string, extension: string, { playground, path, repo }: Omit<Link, 'isId'>): string {
  const encoded = (value: string): string => encodeURIComponent(value).replaceAll('%2F', '/').replaceAll('%3A', ':');
  const parts = Object.entries({ playground, path, repo }).filter(([, value]) => value !== '');
  return `${scheme}://${extension}/open?${parts.map(([key, value]) => `${key}=${encoded(value)}`).join('&')}`;
}

/** A text of someone else as one short line, without what is not seen or changes the direction of what is. */
export function printable(text: string, length = 80): string {
  const line = text.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ').replace(/\s+/g, ' ').trim();
  const points = Array.from(line);
  return points.length > length ? `${points.slice(0, length - 1).join('')}…` : line;
}

/**
 * A script that clones a repository into the home folder, for `sh -c`. It asks nothing, clones no submodules, and git may use
 * https only, whatever it is redirected to. A clone that is there already stays as it is.
 */
export function cloneScript(repo: string): string {
  return [
    'cd || exit',
    `url="${repo}" folder="${folderOf(repo)}"`,
    'command -v git >/dev/null || { echo "git is not installed there" >&2; exit 1; }',
    'if [ -e "$folder" ]; then',
    '  [ "$(git -C "$folder" remote get-url origin 2>/dev/null)" = "$url" ] && exit 0',
    '  echo "$folder exists there and is no clone of it" >&2; exit 1',
    'fi',
    'part=$folder.part-$$',
    'trap "rm -rf -- \\"\\$part\\"" EXIT',
    'export GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=https LC_ALL=C',
    'git clone --quiet --no-recurse-submodules -- "$url" "$part" </dev/null && mv -- "$part" "$folder"',
  ].join('\n');
}

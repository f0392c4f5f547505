// Opens a link to a playground, after a question that says all that will happen, and copies one.

import * as vscode from 'vscode';
import { knownAliases } from '../aliases';
import { type Aliases, findByHost, parseHost, playgroundHost } from '../authority';
import type { Binary } from '../binary';
import { Failure } from '../failure';
import * as format from '../format';
import { type CatalogEntry, readCatalog } from '../json';
import { type Link, cloneScript, folderOf, printable, readLink, writeLink } from '../link';
import { homeOf, openHost, wake, writeEntries } from '../open';
import { type Playground, condition, sshMachines } from '../playground';
import { windowAuthority } from '../prewake';
import { type Work, withProgress } from '../progress';
import type { Services } from '../services';
import { ensureSshExtension } from '../sshextension';
import { choiceOf, startChoice } from './start';
import { type Subject, isThere, target } from './target';

/** The playground that a link means: one of the user's, or one of the catalogue that is to be started. */
type Meant = { playground: Playground } | { entry: CatalogEntry };

/** True while a question is open. Another link would put its own on top of it. */
let asking = false;

/** Opens a link. Nothing is started, woken or cloned before the user has agreed. */
export async function openLink(services: Services, { path, query }: Pick<vscode.Uri, 'path' | 'query'>): Promise<void> {
  const link = readLink(path, query);
  if (asking) throw new Failure('failed', 'another link is waiting for your answer', 'answer it first, and open this one again');
  asking = true;
  let meant: Meant;
  try {
    meant = await find(services, link);
    if (!(await isAgreed(link, meant))) return;
  } finally {
    asking = false;
  }
  await ensureSshExtension(services.context.extension.id);
  const playground = 'entry' in meant ? await startOf(services, meant.entry) : meant.playground;
  if (playground) await enter(services, playground, link);
}

async function find({ binary, watch }: Services, { playground: name, isId }: Link): Promise<Meant> {
  const found = findByHost(`playground-${name}`, (await watch.fetch()).filter((one) => condition(one) !== 'gone'));
  if (found) return { playground: found };
  if (isId) throw new Failure('failed', `the link was refused: you have no playground with the id ${name}`, 'a link for others names a playground of the catalogue');
  const entry = (await binary.ask(['catalog', '--json'], readCatalog)).find((one) => one.name === name);
  if (!entry) throw new Failure('failed', `the link was refused: the catalogue has no playground ${name}`, 'ask its author for a new link');
  return { entry };
}

/** Asks the user, and says what will happen, in the order in which it will. */
async function isAgreed(link: Link, meant: Meant): Promise<boolean> {
  const yes = 'Open';
  const detail = [
    'entry' in meant ? willStart(meant.entry) : willOpen(meant.playground),
    link.repo && `Clone ${link.repo} into the folder ${folderOf(link.repo)} of the machine. The owner of that address decides what it contains.`,
    `Open ${link.path ? `the folder "${link.path}"` : link.repo ? 'this folder' : 'the home folder'} in a new window.`,
  ];
  const options = { modal: true, detail: detail.filter(Boolean).join('\n\n') };
  return (await vscode.window.showWarningMessage('A link asks to open a playground. Do you trust where it comes from?', options, yes)) === yes;
}

function willStart({ name, title, owner }: CatalogEntry): string {
  const author = owner === '' ? '' : ` by ${printable(owner, 40)}, not by the platform`;
  return `Start a new playground "${printable(title || name)}" (${name})${author}. That takes seconds to minutes, and it uses your account's playground time.`;
}

function willOpen(playground: Playground): string {
  const title = `your playground "${printable(format.title(playground))}" (${playground.template.name})`;
  const is = condition(playground);
  if (is === 'up') return `Enter ${title}, which is running.`;
  if (is !== 'down') return `Open ${title}, which is ${format.state(playground)}, and start it if necessary. That takes seconds to minutes.`;
  const purpose = playground.stoppedOnPurpose ? 'you have stopped' : `is ${format.state(playground)}`;
  return `Start ${title}, which ${purpose}. That takes seconds to minutes.`;
}

async function startOf(services: Services, entry: CatalogEntry): Promise<Playground | undefined> {
  const choice = choiceOf(entry);
  const options = await choice.prepare();
  return options && startChoice(services, choice, options);
}

async function enter({ binary, watch, context }: Services, playground: Playground, { path, repo }: Link): Promise<void> {
  const { id, host } = playground;
  const home = await withProgress(`Opening ${format.title(playground)}`, async (work) => {
    await writeEntries(binary, work);
    const woken = await wake(binary, id, playground, work);
    if (repo) await clone(binary, id, repo, work);
    return homeOf(sshMachines(woken)[0]?.user ?? 'root');
  });
  await watch.catchUp();
  const folder = path || (repo && folderOf(repo));
  await openHost(context.globalState, host, folder.startsWith('/') ? folder : `${home}/${folder}`.replace(/\/$/, ''), true);
}

/** Clones a repository on the machine. `-a` keeps the user's ssh agent away, whatever the ssh configuration says. */
async function clone(binary: Binary, id: string, repo: string, { signal, report }: Work): Promise<void> {
  report(`cloning ${repo}`);
  try {
    await binary.run(['ssh', id, '-a', '-T', '--', `exec sh -c '${cloneScript(repo)}'`], { signal, onProgress: report });
  } catch (error) {
    const failure = Failure.from(error);
    if (failure.kind === 'cancelled') throw failure;
    throw new Failure('failed', `cannot clone ${repo}: ${printable(failure.message, 200)}`, 'check the address, and that the machine reaches it');
  }
}

/** Copies a link: to this playground for the user's own computers, or to one of its catalogue name for others. */
export async function copyLink(services: Services, subject: Subject): Promise<void> {
  const found = await target(services, subject, isThere, 'copy a link to');
  if (!found) return;
  const { id, template, ofLesson } = found.playground;
  const mine = { label: 'To this playground', description: 'works with your account only', playground: id };
  const others = { label: `To a playground ${template.name}`, description: 'works for others, too, who start their own', playground: template.name };
  const choices = ofLesson || template.name === '' ? [mine] : [mine, others];
  const chosen = choices.length > 1 ? await vscode.window.showQuickPick(choices, { placeHolder: 'Select the link to copy' }) : mine;
  if (!chosen) return;
  const link = { playground: chosen.playground, path: openFolder(id, knownAliases(services.context.globalState)), repo: '' };
  await vscode.env.clipboard.writeText(writeLink(vscode.env.uriScheme, services.context.extension.id, link));
  vscode.window.setStatusBarMessage('Link copied to the clipboard', 3000);
}

/** The folder that this window has open on a playground; empty for another window, and for a folder that no link may name. */
function openFolder(id: string, aliases: Aliases): string {
  const host = playgroundHost(windowAuthority() ?? '', aliases);
  if (host === undefined || parseHost(host).label !== id || host.includes('.')) return '';
  const path = vscode.workspace.workspaceFolders?.[0]?.uri.path ?? '';
  try {
    return readLink('/open', `playground=${id}&path=${path}`).path;
  } catch {
    return '';
  }
}

// The editor's own extension that connects by SSH, without which no window opens on a playground.
//
// Remote-SSH, Open Remote - SSH and their forks resolve the same authority, so each has the same activation event. That also
// finds those that editors include, such as anysphere.remote-ssh (Cursor), codeium.windsurf-remote-openssh and
// google.antigravity-remote-openssh (https://github.com/coder/vscode-coder/blob/main/src/remote/sshExtension.ts), and those of
// newer editors. An extension that only prepares the connection has the event as well: this one, or Coder's, which needs one of
// them. If such a one is alone, nothing is offered, and the editor itself says that it cannot open the window.

import * as vscode from 'vscode';
import { Failure } from './failure';

const EVENT = 'onResolveRemoteAuthority:ssh-remote';
/** Microsoft's extension. Its licence is for Microsoft's own builds. */
const REMOTE_SSH = { id: 'ms-vscode-remote.remote-ssh', name: 'Remote - SSH' };
/** The open one, for the others: https://open-vsx.org/extension/jeanp413/open-remote-ssh */
const OPEN_REMOTE_SSH = { id: 'jeanp413.open-remote-ssh', name: 'Open Remote - SSH' };
/** The schemes of Microsoft's builds. */
const MICROSOFT = ['vscode', 'vscode-insiders'];

/** The extension to install in this editor. */
export const suggested = (): typeof REMOTE_SSH => (MICROSOFT.includes(vscode.env.uriScheme) ? REMOTE_SSH : OPEN_REMOTE_SSH);

/** True if an extension can open windows by SSH, or if it cannot be seen here: a browser's windows are those of its server. */
export function canConnect(own: string): boolean {
  if (vscode.env.uiKind === vscode.UIKind.Web) return true;
  return vscode.extensions.all.some(({ id, packageJSON }) => {
    const { activationEvents } = packageJSON as { activationEvents?: unknown };
    return id !== own && Array.isArray(activationEvents) && activationEvents.includes(EVENT);
  });
}

/** Offers to install an extension that connects by SSH, if there is none. Throws if the user declines, or the installation fails. */
export async function ensureSshExtension(own: string): Promise<void> {
  if (canConnect(own)) return;
  const { id, name } = suggested();
  const yes = 'Install';
  const question = `To open a playground in a window, this editor needs an extension that connects by SSH. Install ${name} (${id})?`;
  if ((await vscode.window.showWarningMessage(question, { modal: true }, yes)) !== yes) throw new Failure('cancelled', 'cancelled');
  try {
    await vscode.commands.executeCommand('workbench.extensions.installExtension', id);
  } catch (error) {
    throw new Failure('failed', `${name} was not installed: ${Failure.from(error).message}`, 'install an extension that connects by SSH, and open the playground again');
  }
}

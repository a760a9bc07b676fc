// The line to write on: new messages, messages written anew, images, and why one may not write.

import { countdown, untilText } from './countdown.js';
import { byId, setText } from './dom.js';
import { filesOf, ImageError, imageUrl, largestBody } from './images.js';
import { focusMenu } from './menu.js';
import { isEditable, menuKey } from './messages.js';
import { explain } from './notices.js';

function silence(session) {
  const { muted } = session;
  if (!session.may('send')) return ['You may read here, but not write.'];
  if (!muted) return [];
  const { until, reason } = muted;
  const said = `You are muted${untilText(until)}${reason ? `: ${reason}` : ''}.`;
  return Number.isFinite(until) ? [said, ' It ends ', countdown(until), '.'] : [said];
}

/** `sent()` is called when something went out. */
export function createComposer(actions, sent) {
  const input = byId('chat-input');
  const note = byId('chat-note');
  const bar = byId('chat-editing');
  const trouble = byId('chat-trouble');
  const file = byId('chat-file');
  let session = null;
  let silenced = '';
  // `{ message, draft, byButton }` while a message is written anew.
  let editing = null;

  /** The line grows with what is written, up to the limit in the style sheet. */
  function fit() {
    input.style.height = 'auto';
    input.style.height = `${input.scrollHeight + 2}px`;
  }

  function write(text) {
    input.value = text;
    fit();
  }

  const refuse = (text) => setText(trouble, text);

  function edit(message, byButton) {
    if (input.disabled) return;
    const draft = editing ? editing.draft : input.value;
    editing = { message, draft, byButton };
    refuse('');
    bar.hidden = false;
    setText(byId('chat-send'), 'Save');
    write(message.body);
    input.focus();
    input.setSelectionRange(message.body.length, message.body.length);
  }

  function stopEditing() {
    if (!editing) return;
    const { message, draft, byButton } = editing;
    editing = null;
    bar.hidden = true;
    refuse('');
    setText(byId('chat-send'), 'Send');
    write(draft);
    if (!byButton || !focusMenu(menuKey(message))) input.focus();
  }

  async function save(body) {
    const { message } = editing;
    if (body === message.body) return stopEditing();
    const error = await actions.rewrite(message, body);
    if (editing?.message !== message) return undefined;
    if (!error) return stopEditing();
    if (error.code !== 'conflict' || !error.current) return refuse(explain(error).text);
    // What was written stays in the line: the next try is over the newer one.
    editing.message = error.current;
    return refuse(`It was changed meanwhile and now reads: “${error.current.body}”. Save again to replace that.`);
  }

  function submit() {
    const text = input.value.trim();
    if (text === '' || input.disabled) return;
    if (editing) {
      save(text);
      return;
    }
    write('');
    refuse('');
    actions.say(text);
    sent();
  }

  function editLast() {
    const own = session?.room.inOrder().filter((message) => message.by === session.user && isEditable(message)) ?? [];
    if (own.length > 0) edit(own.at(-1), false);
  }

  async function sendImages(files) {
    if (!session || input.disabled || files.length === 0) return;
    const current = session;
    refuse('');
    if (current.room.config.images === false) return refuse('This room takes no images.');
    for (const image of files) {
      try {
        const body = await imageUrl(image, largestBody(current.welcome?.limits, current.room.config));
        if (session !== current) return;
        actions.say(body, { kind: 'image' });
        sent();
      } catch (error) {
        if (!(error instanceof ImageError)) throw error;
        refuse(error.message);
      }
    }
  }

  byId('chat-form').addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  byId('chat-edit-cancel').addEventListener('click', stopEditing);
  input.addEventListener('input', fit);
  input.addEventListener('keydown', (event) => {
    // While a word is being composed (Japanese, Chinese, …) Enter ends the word, not the message.
    if (event.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === 'Escape' && editing) {
      // Not out of the room.
      event.stopPropagation();
      stopEditing();
    } else if (event.key === 'ArrowUp' && input.value === '' && !editing) {
      event.preventDefault();
      editLast();
    }
  });

  byId('chat-image').addEventListener('click', () => file.click());
  file.addEventListener('change', () => {
    sendImages([...file.files]);
    // The same file may be chosen again.
    file.value = '';
  });
  input.addEventListener('paste', (event) => {
    const files = filesOf(event.clipboardData);
    if (files.length === 0) return;
    event.preventDefault();
    sendImages(files);
  });
  const chat = byId('chat');
  const carriesFiles = (event) => event.dataTransfer?.types.includes('Files');
  chat.addEventListener('dragover', (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    chat.classList.add('dropping');
  });
  chat.addEventListener('dragleave', (event) => chat.contains(event.relatedTarget) || chat.classList.remove('dropping'));
  chat.addEventListener('drop', (event) => {
    chat.classList.remove('dropping');
    if (!carriesFiles(event)) return;
    // Else the browser would leave the page for the file.
    event.preventDefault();
    const files = filesOf(event.dataTransfer);
    if (files.length === 0) refuse('Only images can be sent.');
    else sendImages(files);
  });

  return {
    edit: (message) => edit(message, true),
    render(current) {
      session = current;
      const why = silence(session);
      const key = JSON.stringify(why.map((part) => part.dataset?.until ?? part));
      if (key !== silenced) {
        silenced = key;
        note.replaceChildren(...why);
        note.hidden = why.length === 0;
      }
      const mute = why.length > 0;
      if (mute) stopEditing();
      for (const part of [input, byId('chat-send'), byId('chat-image')]) part.disabled = mute;

      const { config, messages, epoch } = session.room;
      byId('chat-image').hidden = config.images === false;
      const slow = config.cooldownMs?.messages ?? 0;
      byId('chat-slow').hidden = !slow;
      setText(byId('chat-slow'), slow ? `Slow mode: one message in ${slow / 1000} s.` : '');
      if (editing && epoch && !messages.has(editing.message.id)) {
        stopEditing();
        refuse('The message that you were editing was deleted.');
      }
    },
    focus() {
      // Where the page scrolls, one comes in at its top.
      input.focus({ preventScroll: true });
    },
    clear() {
      stopEditing();
      refuse('');
      write('');
    },
  };
}

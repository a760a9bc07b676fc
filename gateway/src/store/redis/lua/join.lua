--[[ The answers of joins and tails: pictures of the room as it is at the end of the batch.

An answer is { reason, you? }: reason 0 resumed, 1 new, 2 too old, 3 another epoch, 4 ahead; `you` a user's JSON.
What they share, `shared` of the answer: { picture, first, events, places, members, rules }. `events` are the log from seq `first`
on, as far back as the resumed ones need; `places` is for them, too: a list of user id and position (JSON), empty in a
room that does not tell who is there; `members` is their number in a room that counts, else -1; `rules` what gateways
must know, see rules.lua, else 0. `picture`, 0 if all are
resumed:
{ status, config (JSON), version, state (members of a JSON object), users (items of a JSON list), members, messages
(texts, the newest that anyone asked for, oldest first) }. ]]

-- Whether the room has the event `seq`, made at `ts`, as far as the log tells.
local function has(c, seq, ts)
  if seq > c.seq then return false end
  if ts == 0 then return true end
  local event = read('ZRANGEBYSCORE', c.keys[LOG], format('%d', seq), format('%d', seq))[1]
  return not event or ts_of(event) == ts
end

-- T: since: epoch and seq, ts of that event or 0, the last seq that the node knows of, messages. Keeps the room alive.
-- First in its batch. What a node says is true: if the room lacks an event of its epoch, its keys were put back under a
-- running server. It may have grown again since under the same epoch, so up to no event is that certain: it ends, and
-- holds no more. Answer: { reason }.
OPS.T = function(c, i, at)
  local epoch, seq, ts, known = c.argv[i], tonumber(c.argv[i + 1]), tonumber(c.argv[i + 2]), tonumber(c.argv[i + 3])
  if not c.epoch then
    gone(c, at)
  else
    rest(c)
    if epoch == c.epoch and c.events_n == 0 and not c.pending then
      if known > c.seq or not has(c, seq, ts) then new_epoch(c, false) end
    end
    c.kept = true
    c.asked[#c.asked + 1] = { at = at, epoch = epoch, seq = seq, known = known, messages = tonumber(c.argv[i + 4]) }
  end
  return i + 5
end

-- Events from seq `from` on, stored and staged, without those past their age. Returns the seq of the first and them.
local function events_from(c, from)
  local stored = c.fresh and {} or read('ZRANGEBYSCORE', c.keys[LOG], from, c.before)
  local oldest, some, skip = c.now - c.limits.log_age, {}, 0
  local first = c.before - #stored + 1
  while skip < #stored and ts_of(stored[skip + 1]) < oldest do skip = skip + 1 end
  for k = skip + 1, #stored do some[#some + 1] = stored[k] end
  for k = 1, c.events_n do some[#some + 1] = new_events[k] end
  return first + skip, some
end

local function picture(c, wanted)
  local w = window(c)
  local messages = {}
  if wanted > 0 then
    messages = page(c, w.first, w.count + c.sent_n, wanted, true)
  end
  return { c.status, c.config, c.version, all_state(c), c.mode == WHO and all_users(c) or '', c.members, messages }
end

local function answer_joins(c)
  cold(c)
  members(c)
  telling(c)
  local bound = max(c.fresh and 1 or c.lf, c.seq - c.limits.log_events + 1)
  local from
  for _, asked in ipairs(c.asked) do
    if asked.epoch == '' then
      asked.reason = 1
    elseif c.fresh or max(asked.seq, asked.known or 0) > (holds_to(c, asked.epoch) or -1) then
      asked.reason = 3
    elseif asked.seq > c.before then
      asked.reason = 4
    elseif asked.seq + 1 < bound then
      asked.reason = 2
    else
      from = min(from or asked.seq + 1, asked.seq + 1)
    end
  end
  local first, missed = c.seq + 1, {}
  if from then first, missed = events_from(c, from) end
  local wanted, shown, resumed = 0, false, false
  for _, asked in ipairs(c.asked) do
    if not asked.reason then asked.reason = asked.seq + 1 >= first and 0 or 2 end
    if asked.reason ~= 0 then
      wanted, shown = max(wanted, asked.messages), true
    elseif asked.id then
      resumed = true
    end
  end
  local places = {}
  if resumed and c.mode == WHO then
    for id, text in pairs(all_places(c)) do places[#places + 1], places[#places + 2] = id, text end
  end
  c.out[6] = { shown and picture(c, wanted) or 0, first, missed, places, c.mode == HOW_MANY and c.members or -1,
    rules_text(c) }
  for _, asked in ipairs(c.asked) do
    local answer = { asked.reason }
    if asked.id then answer[2] = render(asked.id, c.users[asked.id] or asked.rec, c.ts, place(c, asked.id)) end
    c.out[asked.at] = answer
  end
end

-- Messages: ids in the order of their times, texts by id. Staged ones follow the stored ones.

local ZEROS = '0000000000'
-- Maintenance of log and messages is due each time `seq` passes a multiple of this.
local EVERY = 64
-- Messages past retention that go in one step: more than come in between.
local MOST_EXPIRED = 4 * EVERY

-- Looks up the commands of `n` messages from argument `i` on with one call.
local function prepare(c, i, n)
  local fields, m, known = {}, 0, c.known or {}
  c.known = known
  for j = i, i + 3 * (n - 1), 3 do
    local key = c.argv[j]
    if key ~= '' then
      local field = sub(key, 17)
      if known[field] == nil then
        m = m + 1
        fields[m] = field
      end
    end
  end
  look_up(c, fields)
end

-- Whether a body of this kind and so many bytes is not allowed here; if so, the command is refused.
local function unfit(c, at, kind, bytes)
  local guard = c.guard
  if not guard then return false end
  if guard.images == false and kind == 'image' then
    refuse(c, at, 'bad_request', 'this room takes no images')
    return true
  end
  if guard.bytes and bytes > guard.bytes then
    refuse(c, at, 'too_large', '`body` has ' .. bytes .. ' bytes; this room takes ' .. guard.bytes)
    return true
  end
  return false
end

-- Whether a message is not to be sent, by its author (JSON) and its tail; if so, it is refused.
local function unwelcome(c, at, by, tail)
  local head = 5 + #by
  local _, behind, kind = find(tail, '^,"kind":"(%a+)","body":', head + 1)
  return unfit(c, at, kind, #tail - behind - #',"version":1}') or hindered(c, at, 'messages', plain(by))
end

-- Stages `n` messages from argument `i` on.
local function send(c, i, at, n)
  local epoch, guard = c.epoch, c.guard
  if c.shut then
    for k = 0, n - 1 do gone(c, at + k) end
    return
  end
  if n > 1 then prepare(c, i, n) end
  if c.pending then flush(c) end
  local argv, out, ts = c.argv, c.out, c.ts
  local seq, k, m, bytes, s = c.seq, c.events_n, c.sent_n, c.bytes, nil
  local opening = '{"type":"message.sent","room":"' .. c.room .. '","seq":'
  local by, middle = ',"ts":' .. ts .. ',"by":', ',"ts":' .. ts .. ','
  for j = 0, n - 1 do
    local a = i + 3 * j
    if not (happened(c, at + j, argv[a]) or guard and unwelcome(c, at + j, argv[a + 1], argv[a + 2])) then
      seq, k, m = seq + 1, k + 1, m + 1
      s = format('%d', seq)
      local id = epoch .. '-' .. sub(ZEROS, #s + 1) .. s
      local message = '{"id":"' .. id .. '","seq":' .. s .. middle .. argv[a + 2]
      local text = opening .. s .. by .. argv[a + 1] .. ',"data":' .. message .. '}'
      bytes = bytes + #text
      new_events[k] = text
      new_log[2 * k - 1], new_log[2 * k] = s, text
      new_index[2 * m - 1], new_index[2 * m] = ts, id
      new_texts[2 * m - 1], new_texts[2 * m] = id, message
      remember(c, argv[a], seq)
      out[at + j] = seq
    end
  end
  c.seq, c.s, c.events_n, c.sent_n, c.bytes = seq, s or c.s, k, m, bytes
end

-- M: key, by (JSON), tail (shared/src/protocol/event.rs, message_tail). Answer: seq; the text is the caller's to rebuild.
OPS.M = function(c, i, at)
  send(c, i, at, 1)
  return i + 3, at
end

-- N: several messages on end: a list of key, by and tail. An answer for each, as of M.
OPS.N = function(c, i, at)
  local n = tonumber(c.argv[i])
  send(c, i + 1, at, n)
  return i + 1 + 3 * n, at + n - 1
end

-- Ranks of the stored messages: `first` is within retention, all others before it are not; `count` is past the last.
local function window(c)
  if c.window then return c.window end
  local w = { first = 0, count = 0 }
  if not c.fresh then
    local key = c.keys[MESSAGES]
    w.count = read('ZCARD', key)
    w.first = read('ZCOUNT', key, '-inf', '(' .. format('%d', c.now - c.limits.retention))
    read('HLEN', c.keys[MESSAGE])
  end
  c.window = w
  return w
end

-- Messages past retention, as many as may go in one step.
local function expired(c)
  local before = '(' .. format('%d', c.now - c.limits.retention)
  local ids = read('ZRANGEBYSCORE', c.keys[MESSAGES], '-inf', before, 'LIMIT', 0, MOST_EXPIRED)
  if #ids == 0 then return nil end
  read('HLEN', c.keys[MESSAGE])
  return ids
end

-- Ids and texts of the ranks `from` to `to`; staged messages have the ranks after the stored ones. A text that is not
-- there is false.
local function slice(c, from, to)
  local count = window(c).count
  local ids, texts = {}, {}
  if from < count then
    ids = read('ZRANGE', c.keys[MESSAGES], from, min(to, count - 1))
    if #ids > 0 then texts = many(read, 'HMGET', c.keys[MESSAGE], ids, #ids) end
  end
  for rank = max(from, count), to do
    local k = rank - count + 1
    ids[#ids + 1], texts[#ids + 1] = new_index[2 * k], new_texts[2 * k]
  end
  if c.edits then
    for k = 1, #ids do
      local text = c.edits[ids[k]]
      if text ~= nil then texts[k] = text end
    end
  end
  return ids, texts
end

-- Up to `limit` of the ranks `lo` to `hi - 1`, the newest or the oldest of them, within the bytes of a page but one at
-- least. Returns texts and ids, oldest first, and the ranks of the first and the last.
local function page(c, lo, hi, limit, newest)
  local texts, ids, n, bytes = {}, {}, 0, 0
  local left, size, last = min(limit, hi - lo), 8, nil
  local rank = newest and hi - 1 or lo
  while left > 0 do
    local span = min(size, left)
    local from = newest and rank - span + 1 or rank
    local some, found = slice(c, from, from + span - 1)
    for step = 1, span do
      local k = newest and span - step + 1 or step
      local text = found[k]
      if text then
        if n > 0 and bytes + #text > c.limits.page_bytes then
          left = 0
          break
        end
        n, bytes, last = n + 1, bytes + #text, from + k - 1
        texts[n], ids[n] = text, some[k]
      end
    end
    left = max(0, left - span)
    rank = newest and rank - span or rank + span
    size = size * 2
  end
  if not newest then return texts, ids, lo, last end
  for k = 1, floor(n / 2) do
    texts[k], texts[n - k + 1] = texts[n - k + 1], texts[k]
    ids[k], ids[n - k + 1] = ids[n - k + 1], ids[k]
  end
  return texts, ids, last, hi - 1
end

local function seq_of(id)
  return tonumber(match(id, '%-(%d+)$')) or 0
end

-- How many messages come before the one that a cursor names (with `past`: before or at it), whether it exists or not.
local function rank_of(c, cursor, epoch, past)
  if sub(epoch, 1, LIFE) ~= sub(c.epoch, 1, LIFE) or c.fresh and c.sent_n == 0 then return 0 end
  local count, key, seq = window(c).count, c.keys[MESSAGES], seq_of(cursor)
  if count > 0 then
    local rank = read('ZRANK', key, cursor)
    if rank then return past and rank + 1 or rank end
  end
  local lo, hi = 0, count
  while lo < hi do
    local mid = floor((lo + hi) / 2)
    if seq_of(read('ZRANGE', key, mid, mid)[1]) < seq then lo = mid + 1 else hi = mid end
  end
  if lo == count then
    for k = 1, c.sent_n do
      local other = seq_of(new_index[2 * k])
      if other < seq or past and other == seq then lo = lo + 1 end
    end
  end
  return lo
end

-- H: before (an id, or empty), after (likewise), limit. Answer: text.
OPS.H = function(c, i, at)
  local before, after, limit = c.argv[i], c.argv[i + 1], tonumber(c.argv[i + 2])
  if c.shut then
    gone(c, at)
    return i + 3
  end
  local cursor = before ~= '' and before or after
  local epoch
  if cursor ~= '' then
    epoch = match(cursor, '^([0-9a-z]+)%-%d%d%d%d%d%d%d%d%d%d+$')
    if not epoch then
      refuse(c, at, 'bad_request', 'not a cursor')
      return i + 3
    end
  end
  local w = window(c)
  local first, total = w.first, w.count + c.sent_n
  local texts, ids, from, to
  local lo, hi = first, total
  if before ~= '' then
    hi = max(first, rank_of(c, before, epoch, false))
  elseif after ~= '' then
    lo = max(first, rank_of(c, after, epoch, true))
  end
  texts, ids, from, to = page(c, lo, hi, limit, after == '')
  if #ids == 0 then from, to = lo, hi - 1 end
  local out = '{"messages":[' .. concat(texts, ',') .. ']'
  if from > first then out = out .. ',"before":"' .. (ids[1] or cursor) .. '"' end
  if to < total - 1 then out = out .. ',"after":"' .. (ids[#ids] or cursor) .. '"' end
  c.out[at] = out .. '}'
  return i + 3
end

-- Messages after they were sent: edited, deleted, compared with what a client has. What has changed is staged in
-- `c.edits`: id -> text, or false for deleted.

-- Messages looked at for one comparison, and read with one call.
local MOST_COMPARED, COMPARED = 2000, 200

-- `data` of the event `seq`; nil where the log does not reach back to it.
local function told(c, seq)
  local event
  if seq > c.before then
    event = new_events[seq - c.before]
  else
    local s = format('%d', seq)
    event = read('ZRANGEBYSCORE', c.keys[LOG], s, s)[1]
  end
  -- The first `"data":` is the event's own: within the author's name a quote is escaped.
  return event and match(event, '^.-"data":(.*)}$')
end

-- Answers a command that has happened by what its event told: `make` gets what `pattern` finds in the event's data, or
-- nil, and the seq. { '=', text }.
local function again(c, at, pattern, make)
  local answer = c.out[at]
  if answer[1] ~= '=' then return end
  local data = told(c, answer[2])
  local text = make(data and match(data, pattern), answer[2])
  if text then c.out[at] = { '=', text } else refuse(c, at, 'not_found', 'the message is deleted by now') end
end

-- A message's text as this batch has left it; nil for none, or one past retention.
local function message_of(c, id)
  local text = c.edits and c.edits[id]
  if text ~= nil then return text or nil end
  for k = c.sent_n, 1, -1 do
    if new_texts[2 * k - 1] == id then return new_texts[2 * k] end
  end
  text = not c.fresh and read('HGET', c.keys[MESSAGE], id) or nil
  if not text then return nil end
  local ts = tonumber(match(text, '"ts":(%d+)'))
  if not ts then damaged(c.keys[MESSAGE], id) end
  if ts < c.now - c.limits.retention then return nil end
  return text
end

-- What stands before the body of a message, its author (JSON), its kind and its version.
local function parts_of(c, id, text)
  local _, by_at = find(text, '^{"id":"[^"]*","seq":%d+,"ts":%d+,"by":"')
  local at, head, kind = by_at, nil, nil
  while at do
    at = find(text, '["\\]', at + 1)
    if not at or byte(text, at) == 34 then break end
    at = at + 1
  end
  if at then
    _, head, kind = find(text, '^,"kind":"(%a+)","body":', at + 1)
  end
  local tail = sub(text, -64)
  local version = match(tail, ',"version":(%d+)}$') or match(tail, ',"version":(%d+),"editedAt":%d+}$')
  if not (head and version) then damaged(c.keys[MESSAGE], id) end
  return sub(text, 1, head), sub(text, by_at, at), kind, tonumber(version)
end

local function stage_edit(c, id, text)
  read('HLEN', c.keys[MESSAGE])
  read('ZCARD', c.keys[MESSAGES])
  c.edits = c.edits or {}
  c.edits[id] = text
end

-- After the messages of the batch.
local function write_edits(c)
  for id, text in pairs(c.edits) do
    if text then
      call('HSET', c.keys[MESSAGE], id, text)
    else
      call('HDEL', c.keys[MESSAGE], id)
      call('ZREM', c.keys[MESSAGES], id)
    end
  end
end

-- The message that is to be changed; nil where the command is refused. `moderates`: 1 if it may be another's.
local function changeable(c, at, id, by, moderates)
  if hindered(c, at, 'messages', c.guard and plain(by)) then return nil end
  local text = message_of(c, id)
  if not text then
    refuse(c, at, 'not_found', 'there is no such message')
    return nil
  end
  local head, author, kind, version = parts_of(c, id, text)
  if author ~= by and moderates ~= '1' then
    refuse(c, at, 'forbidden', 'only its author and moderators may change a message')
    return nil
  end
  return text, head, kind, version
end

-- E: key, by (JSON), 1 if it may be another's, message id, body (JSON), version expected or empty, 1 if the body is an
-- image. Answer: text.
OPS.E = function(c, i, at)
  local argv = c.argv
  local key, by, moderates, id, body, expected, image = unpack(argv, i, i + 6)
  local stop = i + 7
  local function ack(text) return text and '{"message":' .. text .. '}' end
  if c.shut then
    gone(c, at)
    return stop
  end
  if happened(c, at, key) then
    again(c, at, '^(.*)$', function(text) return ack(text or message_of(c, id)) end)
    return stop
  end
  local text, head, kind, version = changeable(c, at, id, by, moderates)
  if not text or unfit(c, at, kind, #body) then return stop end
  if kind == 'image' and image ~= '1' then
    refuse(c, at, 'bad_request', '`body` of an image is a data URL: data:image/(png|jpeg|gif|webp);base64,…')
  elseif expected ~= '' and tonumber(expected) ~= version then
    refuse(c, at, 'conflict', 'the message has another version', '"version":' .. format('%d', version)
      .. ',"message":' .. text)
  else
    if c.pending then flush(c) end
    local edited = head .. body .. ',"version":' .. format('%d', version + 1) .. ',"editedAt":' .. c.ts .. '}'
    stage_edit(c, id, edited)
    local seq = append(c, 'message.edited', by, edited)
    remember(c, key, seq)
    c.out[at] = ack(edited)
  end
  return stop
end

-- F: key, by (JSON), 1 if it may be another's, message id. Answer: seq.
OPS.F = function(c, i, at)
  local key, by, moderates, id = unpack(c.argv, i, i + 3)
  if c.shut then
    gone(c, at)
  elseif not happened(c, at, key) and changeable(c, at, id, by, moderates) then
    if c.pending then flush(c) end
    stage_edit(c, id, false)
    local seq = append(c, 'message.deleted', by, '{"messageId":"' .. id .. '"}')
    remember(c, key, seq)
    c.out[at] = seq
  end
  return i + 4
end

-- The messages sent from `from` to `to` and later in the batch, in order, as `each(id, text, ts)`; ends where that
-- gives false, or too many were looked at. Returns the ts at which it ended, nil at the end.
local function sent_between(c, from, to, each)
  local first = max(from, c.now - c.limits.retention)
  local offset = 0
  while not c.fresh and first <= to do
    local reply = read('ZRANGEBYSCORE', c.keys[MESSAGES], format('%d', first), format('%.0f', to), 'WITHSCORES',
      'LIMIT', offset, COMPARED)
    local ids, n = {}, #reply / 2
    for k = 1, n do ids[k] = reply[2 * k - 1] end
    local texts = n > 0 and many(read, 'HMGET', c.keys[MESSAGE], ids, n) or {}
    for k = 1, n do
      local id, text, ts = ids[k], texts[k], tonumber(reply[2 * k])
      local edited = c.edits and c.edits[id]
      if edited ~= nil then text = edited end
      if offset + k > MOST_COMPARED or text and not each(id, text) then return ts end
    end
    if n < COMPARED then break end
    offset = offset + n
  end
  if c.now < from or c.now > to then return nil end
  for k = 1, c.sent_n do
    local id, text = new_texts[2 * k - 1], new_texts[2 * k]
    local edited = c.edits and c.edits[id]
    if edited ~= nil then text = edited end
    if text and not each(id, text) then return c.now end
  end
end

-- I: from, to (ms), a list of message id and version, empty where the client does not say. Answer: text.
OPS.I = function(c, i, at)
  local argv, from, to, n = c.argv, tonumber(c.argv[i]), tonumber(c.argv[i + 1]), tonumber(c.argv[i + 2])
  local stop = i + 3 + 2 * n
  if c.shut then
    gone(c, at)
    return stop
  end
  local known, ids = {}, {}
  for k = i + 3, stop - 1, 2 do
    ids[#ids + 1], known[argv[k]] = argv[k], argv[k + 1]
  end
  local missing, changed, bytes = {}, {}, 0
  local next_ts = sent_between(c, from, to, function(id, text)
    local version = known[id]
    local list = not version and missing
      or version ~= '' and tonumber(version) ~= select(4, parts_of(c, id, text)) and changed
    if list then
      if bytes > 0 and bytes + #text > c.limits.page_bytes then return false end
      bytes = bytes + #text
      list[#list + 1] = text
    end
    return true
  end)
  local gone_ids = {}
  local scores = not c.fresh and n > 0 and many(read, 'ZMSCORE', c.keys[MESSAGES], ids, n) or {}
  for k, id in ipairs(ids) do
    local there = scores[k] and tonumber(scores[k]) >= c.now - c.limits.retention
    if c.edits and c.edits[id] == false then there = false end
    if not there and not message_of(c, id) then gone_ids[#gone_ids + 1] = quote(id) end
  end
  c.out[at] = '{"missing":[' .. concat(missing, ',') .. '],"changed":[' .. concat(changed, ',') .. '],"gone":['
    .. concat(gone_ids, ',') .. (next_ts and '],"next":' .. format('%d', next_ts) .. '}' or ']}')
  return stop
end

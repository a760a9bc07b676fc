--[[ Members. The record of a user in `users`, JSON:
  name      to show
  joinedAt  ms
  presence  name -> the value's JSON text as a string: re-encoding would alter numbers and empty lists
  conns     connection -> the node's instance (index.lua); empty while the user is away
  away      ms since when the user has no connection; absent otherwise
`seen` holds when a user last joined, left a connection, changed presence or was active; `away` those who are, so that
the sweep finds who is to leave without looking at the others.

In a room that counts nothing of this makes an event, and its users are in no picture.

A user as clients get it: {"id","name","presence","position"?,"status","joinedAt","lastSeen","connections"}. ]]

local function record(c, id, text)
  local ok, rec = pcall(decode, text)
  if ok and type(rec) == 'table' and type(rec.name) == 'string' and type(rec.joinedAt) == 'number'
    and type(rec.presence) == 'table' and type(rec.conns) == 'table' then
    return rec
  end
  damaged(c.keys[USERS], 'the record of ' .. id)
end

-- The record of a user as this batch has left it; false for no member.
local function user(c, id)
  local rec = c.users[id]
  if rec == nil then
    local text = not c.fresh and read('HGET', c.keys[USERS], id)
    rec = text and record(c, id, text) or false
    c.users[id] = rec
  end
  return rec
end

local function members(c)
  if not c.members then
    c.members = c.fresh and 0 or read('HLEN', c.keys[USERS])
    if not c.fresh then read('ZCARD', c.keys[SEEN]) end
    c.were = c.members
  end
  return c.members
end

-- What members are told of each other.
local WHO, HOW_MANY = 0, 1
local MODES = { full = WHO, count = HOW_MANY, off = 2 }

-- `mode`: what is told now. `wish`: what the room is to tell while it is not too large for it.
local function telling(c)
  if c.mode then return c.mode end
  cold(c)
  c.wish = c.limits.presence
  if c.config ~= '{}' then
    local ok, config = pcall(decode, c.config)
    if ok and type(config) == 'table' then c.wish = MODES[config.presence] or c.wish end
  end
  c.mode = c.wish == WHO and c.counting == 1 and HOW_MANY or c.wish
  return c.mode
end

-- Where a user is, JSON text; false for nowhere yet.
local function place(c, id)
  local text = c.places[id]
  if text == nil then
    text = not c.fresh and read('HGET', c.keys[POSITIONS], id) or false
    c.places[id] = text
  end
  return text
end

-- Where the members are: user id -> JSON text.
local function all_places(c)
  local stored, out = c.fresh and {} or read('HGETALL', c.keys[POSITIONS]), {}
  for k = 1, #stored, 2 do out[stored[k]] = stored[k + 1] end
  for id, text in pairs(c.places) do out[id] = text or nil end
  return out
end

-- A user becomes away, or is not any more.
local function set_away(c, id, since)
  if not c.away_any and not c.fresh then read('ZCARD', c.keys[AWAY]) end
  c.aways[id], c.away_any = since, true
end

local function render(id, rec, seen, where)
  local names, fields, connections = {}, {}, 0
  for name in pairs(rec.presence) do names[#names + 1] = name end
  if #names > 1 then sort(names, less) end
  for k, name in ipairs(names) do fields[k] = quote(name) .. ':' .. rec.presence[name] end
  for _ in pairs(rec.conns) do connections = connections + 1 end
  return '{"id":' .. quote(id) .. ',"name":' .. quote(rec.name) .. ',"presence":{' .. concat(fields, ',')
    .. (where and '},"position":' .. where or '}')
    .. ',"status":"' .. (connections > 0 and 'here' or 'away') .. '","joinedAt":' .. format('%.0f', rec.joinedAt)
    .. ',"lastSeen":' .. seen .. ',"connections":' .. connections .. '}'
end

local PARTS = { 'joined', 'updated', 'away', 'back', 'left' }

-- Makes an event of what has been gathered by `announce`.
function flush(c)
  local pending, parts = c.pending, {}
  c.pending = nil
  for _, part in ipairs(PARTS) do
    if pending[part] then parts[#parts + 1] = '"' .. part .. '":[' .. concat(pending[part], ',') .. ']' end
  end
  local seq = append(c, 'presence', nil, '{' .. concat(parts, ',') .. '}')
  for _, waiting in ipairs(pending.waiting) do
    c.out[waiting.at] = seq
    remember(c, waiting.key, seq)
  end
end

-- Gathers changes of one user (pairs of a part and an item) for the presence event. An event says one thing of a user:
-- when another follows, it goes into the next event. Nothing in a room that counts.
local function announce(c, id, ...)
  if telling(c) ~= WHO then return nil end
  if c.pending and c.pending.ids[id] then flush(c) end
  local pending = c.pending
  if not pending then
    pending = { ids = {}, waiting = {} }
    c.pending = pending
  end
  pending.ids[id] = true
  for k = 1, select('#', ...), 2 do
    local part, item = select(k, ...)
    local list = pending[part] or {}
    pending[part] = list
    list[#list + 1] = item
  end
  return pending
end

-- A user becomes a member. Returns its record.
local function arrive(c, id, name, presence, connection, node)
  members(c)
  local rec = { name = name, joinedAt = c.now, presence = presence, conns = { [connection] = node } }
  c.users[id], c.places[id] = rec, false
  c.members, c.joins, c.counted = c.members + 1, c.joins + 1, true
  c.peak = max(c.peak, c.members)
  announce(c, id, 'joined', render(id, rec, c.ts))
  c.touched[id], c.touched_any = true, true
  return rec
end

-- A user is a member no more; `at` is the ms since when it is not here, `more` what else is told of it, JSON behind a comma.
local function depart(c, id, rec, reason, at, more)
  cold(c)
  members(c)
  if not (c.fresh or c.departed) then read('HLEN', c.keys[POSITIONS]) end
  c.departed = c.departed or {}
  c.departed[#c.departed + 1] = id
  announce(c, id, 'left', '{"user":' .. quote(id) .. ',"reason":"' .. reason .. '"' .. (more or '') .. '}')
  if rec.away then set_away(c, id, false) end
  c.users[id], c.places[id] = false, false
  c.members, c.session, c.counted = c.members - 1, c.session + max(0, at - rec.joinedAt), true
  c.touched[id], c.touched_any = true, true
end

-- A user without connections is away.
local function lose(c, id, rec)
  members(c)
  announce(c, id, 'away', quote(id))
  rec.away = c.now
  set_away(c, id, c.now)
  c.touched[id], c.touched_any = true, true
end

-- Reads the records of users that are not known yet, in one go.
local function fetch(c, ids)
  local missing = {}
  for _, id in ipairs(ids) do
    if c.users[id] == nil then missing[#missing + 1] = id end
  end
  if #missing == 0 then return end
  local texts = not c.fresh and many(read, 'HMGET', c.keys[USERS], missing, #missing) or {}
  for k, id in ipairs(missing) do c.users[id] = texts[k] and record(c, id, texts[k]) or false end
end

-- `presence` with fields set (`n` pairs from `i` on) and removed (`m` names from `j` on). Returns nil if it is too
-- large, else the result and whether it differs.
local function merged(c, presence, i, n, j, m)
  local argv, result, changed, bytes = c.argv, {}, false, 0
  for name, value in pairs(presence) do result[name] = value end
  for k = i, i + 2 * n - 1, 2 do
    if result[argv[k]] ~= argv[k + 1] then result[argv[k]], changed = argv[k + 1], true end
  end
  for k = j, j + m - 1 do
    if result[argv[k]] then result[argv[k]], changed = nil, true end
  end
  for name, value in pairs(result) do bytes = bytes + #name + #value end
  if bytes > c.limits.presence_bytes then return nil end
  return result, changed
end

local function too_large(c, at)
  refuse(c, at, 'too_large', 'presence has at most ' .. c.limits.presence_bytes .. ' bytes')
end

-- J: user, name, connection, node, since: epoch (empty for none) and seq, messages, nonce, presence: a list of name and
-- value. The nonce is the epoch of the room if it must be made; empty: it must be there. Answer: see join.lua.
OPS.J = function(c, i, at)
  local argv = c.argv
  local id, name, connection, node, nonce = argv[i], argv[i + 1], argv[i + 2], argv[i + 3], argv[i + 7]
  local n = tonumber(argv[i + 8])
  local stop = i + 9 + 2 * n
  if c.shut and (c.epoch or nonce == '') then
    gone(c, at)
    return stop
  end
  rest(c)
  local rec = c.epoch and user(c, id)
  if c.guard then
    local most = c.guard.most
    if shut_out(c, at, id) or not rec and paced(c, at, 'joins', id) then return stop end
    if most and not rec and members(c) >= most then
      refuse(c, at, 'room_full', 'the room has as many members as it may: ' .. format('%d', most), nil, 1000)
      return stop
    end
  end
  local presence, changed = merged(c, rec and rec.presence or {}, i + 9, n, 0, 0)
  if not presence then
    too_large(c, at)
    return stop
  end
  if not c.epoch then create(c, nonce) end
  cold(c)
  members(c)
  if not rec then
    rec = arrive(c, id, name, presence, connection, node)
  else
    local back = rec.away
    if not rec.conns[connection] and rec.name ~= name then rec.name, changed = name, true end
    rec.presence, rec.away, rec.conns[connection] = presence, nil, node
    if back then set_away(c, id, false) end
    if back and changed then
      announce(c, id, 'back', quote(id), 'updated', render(id, rec, c.ts, place(c, id)))
    elseif back then
      announce(c, id, 'back', quote(id))
    elseif changed then
      announce(c, id, 'updated', render(id, rec, c.ts, place(c, id)))
    end
  end
  c.touched[id], c.touched_any = true, true
  c.asked[#c.asked + 1] = { at = at, id = id, rec = rec, epoch = argv[i + 4], seq = tonumber(argv[i + 5]),
    messages = tonumber(argv[i + 6]) }
  return stop
end

-- P: user, connection, leaving (1 or 0). Answer: 0.
OPS.P = function(c, i, at)
  local id, connection, leaving = c.argv[i], c.argv[i + 1], c.argv[i + 2]
  if not c.epoch then
    gone(c, at)
    return i + 3
  end
  c.out[at] = 0
  -- What is to be archived stays as it was.
  if c.shut then return i + 3 end
  rest(c)
  local rec = user(c, id)
  if not rec or not rec.conns[connection] then return i + 3 end
  members(c)
  rec.conns[connection] = nil
  c.touched[id], c.touched_any = true, true
  if next(rec.conns) then return i + 3 end
  if leaving == '1' then depart(c, id, rec, 'left', c.now) else lose(c, id, rec) end
  return i + 3
end

-- U: key, user, set: a list of name and value, remove: a list of names. Answer: seq. One that changes nothing is
-- remembered, too: sent again behind another, it would undo that.
OPS.U = function(c, i, at)
  local argv, key, id = c.argv, c.argv[i], c.argv[i + 1]
  i = i + 1
  local n = tonumber(argv[i + 1])
  local j = i + 2 + 2 * n
  local m = tonumber(argv[j])
  local stop = j + 1 + m
  if c.shut then
    gone(c, at)
    return stop
  end
  if happened(c, at, key) or hindered(c, at, 'state', id) then return stop end
  rest(c)
  local rec = user(c, id)
  if not rec then
    refuse(c, at, 'not_joined', 'not a member of the room')
    return stop
  end
  members(c)
  local presence, changed = merged(c, rec.presence, i + 2, n, j + 1, m)
  if not presence then
    too_large(c, at)
    return stop
  end
  -- What changes nothing may be what an event that is yet to be made tells.
  local pending = c.pending
  if changed then
    rec.presence = presence
    pending = announce(c, id, 'updated', render(id, rec, c.ts, place(c, id)))
    c.touched[id], c.touched_any = true, true
  end
  if pending then
    pending.waiting[#pending.waiting + 1] = { at = at, key = key }
    if key ~= '' then c.known[sub(key, 17)] = UNMADE end
  else
    remember(c, key, c.seq)
    c.out[at] = c.seq
  end
  return stop
end

-- When each of `ids` was last seen, as text.
local function seen_of(c, ids)
  local out, stored = {}, {}
  if not c.fresh and #ids > 0 then stored = many(read, 'ZMSCORE', c.keys[SEEN], ids, #ids) end
  for k, id in ipairs(ids) do out[k] = c.touched[id] and c.ts or stored[k] or '0' end
  return out
end

-- The `limit` least of `ids` behind `cursor`, in order, and whether there are others. A room may have thousands, of which
-- a page wants few: only those that may be on it are sorted.
local function least(ids, cursor, limit)
  local some, n, bound, more = {}, 0, nil, false
  for _, id in ipairs(ids) do
    if (cursor == '' or less(cursor, id)) and (not bound or less(id, bound)) then
      n = n + 1
      some[n] = id
      if n == 4 * limit + 4 then
        sort(some, less)
        for k = limit + 1, n do some[k] = nil end
        n, bound, more = limit, some[limit], true
      end
    elseif bound and less(cursor, id) then
      more = true
    end
  end
  sort(some, less)
  for k = limit + 1, n do some[k], more = nil, true end
  return some, more
end

-- L: cursor (a user id, or empty), limit. Answer: text.
OPS.L = function(c, i, at)
  local cursor, limit = c.argv[i], tonumber(c.argv[i + 1])
  if c.shut then
    gone(c, at)
    return i + 2
  end
  rest(c)
  local total, ids = members(c), {}
  -- Once a batch: there may be thousands.
  c.stored_ids = c.stored_ids or c.fresh and {} or read('HKEYS', c.keys[USERS])
  for _, id in ipairs(c.stored_ids) do
    if c.users[id] == nil then ids[#ids + 1] = id end
  end
  for id, rec in pairs(c.users) do
    if rec then ids[#ids + 1] = id end
  end
  local some, more = least(ids, cursor, limit)
  local out = {}
  fetch(c, some)
  local seen, stored = seen_of(c, some), {}
  if not c.fresh and #some > 0 then stored = many(read, 'HMGET', c.keys[POSITIONS], some, #some) end
  for k, id in ipairs(some) do
    if c.places[id] == nil then c.places[id] = stored[k] or false end
    out[k] = render(id, c.users[id], seen[k], c.places[id])
  end
  local text = '{"users":[' .. concat(out, ',') .. '],"total":' .. total
  if more and #some > 0 then text = text .. ',"cursor":' .. quote(some[#some]) end
  c.out[at] = text .. '}'
  return i + 2
end

-- All users, for a snapshot.
local function all_users(c)
  local stored = c.fresh and {} or read('HGETALL', c.keys[USERS])
  local scores = c.fresh and {} or read('ZRANGE', c.keys[SEEN], 0, -1, 'WITHSCORES')
  local seen, out = {}, {}
  for k = 1, #scores, 2 do seen[scores[k]] = scores[k + 1] end
  for k = 1, #stored, 2 do
    local id = stored[k]
    if c.users[id] == nil then c.users[id] = record(c, id, stored[k + 1]) end
  end
  local places = all_places(c)
  for id, rec in pairs(c.users) do
    if rec then out[#out + 1] = render(id, rec, c.touched[id] and c.ts or seen[id] or '0', places[id]) end
  end
  return concat(out, ',')
end

-- At the end of a batch: whether the room turns to counts, or back.
local function settle(c)
  if not c.mode or not c.members or c.wish ~= WHO then return end
  local bound = c.limits.full_members
  if c.mode == WHO and c.members > bound then
    c.mode, c.counting, c.counted, c.turned = HOW_MANY, 1, true, true
  elseif c.mode == HOW_MANY and c.members * 5 < bound * 4 then
    c.mode, c.counting, c.counted, c.turned_back = WHO, 0, true, true
    append(c, 'presence', nil, '{"all":true,"joined":[' .. all_users(c) .. ']}')
    c.touched_any = true
  end
end

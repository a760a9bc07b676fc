--[[ One function, `room`: a batch of operations on one room, as one atomic step.

KEYS, all in the room's slot; a batch of nothing but M, N, B and X names the first six only, and none the three of
rules.lua:
  1 room:{id}:meta        hash   see below
  2 room:{id}:log         zset   event text by seq, the newest events
  3 room:{id}:messages    zset   message id by ms
  4 room:{id}:message     hash   message id -> message text
  5 room:{id}:commands:0  hash   what commands did, see commands.lua
  6 room:{id}:commands:1  hash   the same
  7 room:{id}:users       hash   user id -> record, see users.lua
  8 room:{id}:seen        zset   user id by ms last seen
  9 room:{id}:state       hash   field -> value, JSON text
 10 room:{id}:away        zset   user id by ms since when it is away
 11 room:{id}:positions   hash   user id -> where it is, JSON text

ARGV:
  1 limits: fourteen integers, each followed by a space: events of the log, their age (ms), their bytes, life from the last
    change (ms), retention of messages (ms), bytes of a page of messages, bytes of a user's presence, bytes of the state,
    how long commands are remembered (ms), how long a user may be away (ms), what members are told of each other if the
    room does not say (0 who, 1 how many, 2 neither), members above which a room counts by itself, life of a room that
    waits (ms), when a completed room that is still there is handed out again (ms)
  2 the room's channel, room:{id}:events. No key, so it stands here: an ACL or a cluster would take it for one.
  3 … operations, one after another: a letter and its arguments, as the files below say. A list is its length and then
    its items.

Answer: { 1, ts, epoch, seq, life, shared, answer … }. ts is the time of the step in ms, seq the room's last event after
it, life the ms at which the room ends where that was renewed, else 0; shared is what the answers of joins have in
common (join.lua), else 0. An answer is an integer or a text, or a list: { code, message, details?, ms? } for a refusal (ms: when to try
again), or
what the operation's comment says, or what commands.lua says of one that has happened before.

Fields of `meta`; times in Unix ms, sizes in bytes:
  epoch     names the order of events, see epochs.lua; `run` and `past` go with it
  seq       last event                       active    last change             commands  window of commands.lua last written to
  end       when the room ends unless renewed
  live      letters of the keys known to have `end` as their TTL: l log, m messages, h message, u users, e seen, s state,
            a away, p positions, b bans, t mutes
  others    events that are no messages: seq - others messages have been sent
  lf        seq of the log's first event     mark      seq up to which the log is accounted for
  lb        bytes of the log's events from lf to mark
  version   of the state                     sb        bytes of the state      status    waiting, active, completed
  peak      most members at once             joins     arrivals, ever          created   when
  session   ms from arrival to departure, of all who have left: joins - members of them
  counting  1: the room has had too many members to tell who is there
  config    JSON                             settings  what it is made of, see config.lua
  guard     what is demanded of commands, see rules.lua; `paces` goes with it
  completed when it was                      trouble   why it could not be archived; not tried again before `pause`

Atomicity. Every operation is worked out before anything is written, over what was read and what is staged in `c`. A key
of a wrong type or a record that is none therefore ends the call, error code ROOMDAMAGED, with nothing done. Keys that
are written without having been read (log, messages, message) are written first, and taken back if one refuses. What
remains is a fault of this function between two writes.

Clock. Redis's, but never behind the room's last change: within a room ts does not fall, and message ids sort as their
times do. ]]

local call, try
local concat, sort, floor, min, max, find, sub, gsub, match, format, byte, encode, decode

-- While a library loads, Redis offers it no other library: they are bound at the first call.
local function bind()
  call, try = redis.call, redis.pcall
  concat, sort, floor, min, max = table.concat, table.sort, math.floor, math.min, math.max
  find, sub, gsub, match, format, byte = string.find, string.sub, string.gsub, string.match, string.format, string.byte
  encode, decode = cjson.encode, cjson.decode
end

local META, LOG, MESSAGES, MESSAGE, COMMANDS_0, COMMANDS_1, USERS, SEEN, STATE, AWAY, POSITIONS = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
-- Handlers by letter: function(c, i, at), `i` being the place of the first argument and `at` that of the answer;
-- returns the place after the last argument.
local OPS = {}
-- Defined where they belong: users.lua, room.lua.
local flush, create

local RS = '\30'

-- The limits of the last call: nearly always those of the next one.
local limits_text, limits

local function limits_of(text)
  if text ~= limits_text then
    local list = {}
    for item in string.gmatch(text, '%d+') do list[#list + 1] = tonumber(item) end
    limits = { log_events = list[1], log_age = list[2], log_bytes = list[3], ttl = list[4], retention = list[5],
      page_bytes = list[6], presence_bytes = list[7], state_bytes = list[8], dedupe = list[9], grace = list[10],
      presence = list[11], full_members = list[12], waiting = list[13], again = list[14] }
    limits_text = text
  end
  return limits
end

-- The limits of a room that keeps its messages for a time of its own.
local function limits_kept(plain, guard)
  if not (guard and guard.kept) then return plain end
  local own = {}
  for name, value in pairs(plain) do own[name] = value end
  own.retention = guard.kept
  return own
end

-- What is staged: events, and the arguments of the commands that write them. These lists are used again by the next
-- call, which spares their allocation; `events_n`, `sent_n` and `learnt_n` of `c` say how much of them counts.
local new_events, new_log, new_index, new_texts, new_commands = {}, {}, {}, {}, {}

-- Ends the call. Only before the first write.
local function damaged(key, text)
  error({ err = 'ROOMDAMAGED ' .. key .. ': ' .. text })
end

-- A command that reads.
local function read(command, key, ...)
  local reply = try(command, key, ...)
  if type(reply) == 'table' and reply.err then damaged(key, reply.err) end
  return reply
end

-- `run(command, key, items…)` in pieces that fit Lua's stack; pairs stay together. The replies of reading commands
-- follow each other in the list returned.
local PIECE = 4000
local function many(run, command, key, items, count)
  if count <= PIECE then return run(command, key, unpack(items, 1, count)) end
  local all, n = {}, 0
  for at = 1, count, PIECE do
    local reply = run(command, key, unpack(items, at, min(at + PIECE - 1, count)))
    if type(reply) == 'table' then
      if reply.err then return reply end
      for k = 1, min(PIECE, count - at + 1) do all[n + k] = reply[k] end
      n = n + PIECE
    end
  end
  return all
end

-- What most batches do without: users by id (false for none), those changed, since when they are away (false for not any
-- more), where they are, state fields by name (false for none), those changed, and who asked for a picture.
local function rest(c)
  if not c.users then
    c.users, c.touched, c.aways, c.places, c.fields, c.patched, c.asked = {}, {}, {}, {}, {}, {}, {}
  end
end

local function integer(c, field, text)
  local value = tonumber(text)
  if not value then damaged(c.keys[META], field) end
  return value
end

local ESCAPES = { ['"'] = '\\"', ['\\'] = '\\\\', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t' }
local function escaped(char)
  return ESCAPES[char] or format('\\u%04x', byte(char))
end

-- `text` as a JSON string, escaped as shared/src/protocol/json.rs does.
local function quote(text)
  if find(text, '[%z\1-\31"\\]') then text = gsub(text, '[%z\1-\31"\\]', escaped) end
  return '"' .. text .. '"'
end

-- Lua compares strings by the server's locale; order here is by bytes.
local bytewise
local function less(a, b)
  if bytewise == nil then bytewise = '-' < 'A' and 'Z' < '_' and '_' < 'a' and 'z' < '\195\169' end
  if bytewise then return a < b end
  for k = 1, min(#a, #b) do
    local x, y = byte(a, k), byte(b, k)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- `details`: further members of the error's data, JSON without braces; `ms`: when to try again.
local function refuse(c, at, code, message, details, ms)
  c.out[at] = ms and { code, message, details or '', ms } or { code, message, details }
end

-- There is no room, or none that takes anything: `c.shut`.
local function gone(c, at)
  if c.epoch then
    refuse(c, at, 'room_closed', 'the room is completed')
  else
    -- Not `not_found`: gateways tell this from something that is not in the room.
    refuse(c, at, 'no_room', 'the room does not exist any more')
  end
end

-- What of `meta` the hot path does without.
local function cold(c)
  if c.version then return end
  local m = read('HMGET', c.keys[META], 'version', 'sb', 'peak', 'joins', 'lf', 'mark', 'lb', 'status', 'config',
    'session', 'counting')
  c.version, c.sb = integer(c, 'version', m[1]), integer(c, 'sb', m[2])
  c.peak, c.joins = integer(c, 'peak', m[3]), integer(c, 'joins', m[4])
  c.lf, c.mark, c.lb = integer(c, 'lf', m[5]), integer(c, 'mark', m[6]), integer(c, 'lb', m[7])
  c.status, c.config = m[8], m[9]
  -- Rooms of an earlier version have neither.
  c.session, c.counting = tonumber(m[10] or 0) or 0, tonumber(m[11] or 0) or 0
end

--[[ Epochs: whether the server still has what it once told.

A server that was started anew, or promoted, may lack the last events that its predecessor told. Its replication id
shows it: a server takes another one when it starts, when it becomes a master, and never else without need. `run` of
`meta` is the replication id under which the room was last written; if the server's is another one, the room gets a new
epoch before anything else happens in it.

`past` of `meta` says how far the old epochs hold: pairs of an epoch and its last seq that was kept, oldest first, each
followed by a space. Up to there an event is the same in the old epoch and in the new one, for what a server loses are
always its last writes. After it an event of the old epoch is lost, and who has it has another past (Kafka truncates by
leader epochs in the same way, KIP-101).

An epoch is the name of the room's life, ten characters, and from the second on a number of four digits and eight hex
digits of a hash over the server's replication id and its clock: whatever becomes of two servers, they do not give the
same epoch twice. Not over `now`, which stands still behind a clock that was ahead. ]]

local LIFE = 10
-- Most epochs of the past that are kept.
local PAST = 16
-- For how long the server's replication id is taken as known, ms. Within that time no server becomes a replica, takes
-- over another's data and is promoted again.
local KNOWN = 100

local server, server_at = nil, 0

local function server_run(now)
  if not server or now < server_at or now - server_at >= KNOWN then
    server = match(call('INFO', 'replication'), 'master_replid:(%x+)') or ''
    server_at = now
  end
  return server
end

local function past_of(c)
  if not c.past then c.past = c.fresh and '' or read('HGET', c.keys[META], 'past') or '' end
  return c.past
end

-- The room's past ends at its last event: a new epoch. `kept`: up to there the old one holds; else no old one does, which
-- a pair says that is no epoch's.
local function new_epoch(c, kept)
  local past = past_of(c) .. c.epoch .. ' ' .. format('%d', c.seq) .. ' ' .. (kept and '' or 'x 0 ')
  local _, pairs_n = gsub(past, '%w+ %d+ ', '')
  for _ = PAST + 1, pairs_n do past = gsub(past, '^%w+ %d+ ', '', 1) end
  local number = (tonumber(sub(c.epoch, LIFE + 1, LIFE + 4)) or 0) + 1
  c.past = past
  local time = call('TIME')
  local hash = sub(redis.sha1hex(c.run .. time[1] .. ' ' .. time[2]), 1, 8)
  c.epoch = sub(c.epoch, 1, LIFE) .. format('%04d', number % 10000) .. hash
  c.renamed = true
end

-- Up to which event an epoch's order is this room's; nil for none.
local function holds_to(c, epoch)
  if epoch == c.epoch then return math.huge end
  local seq
  -- The least of those that follow: none of the epochs in between may have lost more.
  for old, last in string.gmatch(past_of(c), '(%w+) (%d+) ') do
    last = tonumber(last)
    if old == epoch then seq = last elseif seq then seq = min(seq, last) end
  end
  return seq
end

-- The epoch in which an event was made.
local function epoch_of(c, seq)
  for old, last in string.gmatch(past_of(c), '(%w+) (%d+) ') do
    if seq <= tonumber(last) then return old end
  end
  return c.epoch
end

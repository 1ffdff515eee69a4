package main

import "encoding/binary"

// message is a protobuf message written by hand: ascending fields, zero values omitted, which is
// how etcd's own encoders write theirs.
type message []byte

func (m *message) varint(field int, value uint64) {
	if value != 0 {
		*m = binary.AppendUvarint(*m, uint64(field)<<3)
		*m = binary.AppendUvarint(*m, value)
	}
}

func (m *message) bytes(field int, value []byte) {
	if len(value) > 0 {
		m.element(field, value)
	}
}

// element is a member of a repeated field, which is written even where it is empty.
func (m *message) element(field int, value []byte) {
	*m = binary.AppendUvarint(*m, uint64(field)<<3|2)
	*m = binary.AppendUvarint(*m, uint64(len(value)))
	*m = append(*m, value...)
}

// keyValue is mvccpb.KeyValue.
type keyValue struct {
	key              []byte
	created, updated int64
	version          int64
	value            []byte
	lease            int64
}

func (kv keyValue) encode() []byte {
	var m message
	m.bytes(1, kv.key)
	m.varint(2, uint64(kv.created))
	m.varint(3, uint64(kv.updated))
	m.varint(4, uint64(kv.version))
	m.bytes(5, kv.value)
	m.varint(6, uint64(kv.lease))
	return m
}

// lease is leasepb.Lease.
func leaseRecord(id, ttl, remaining int64) []byte {
	var m message
	m.varint(1, uint64(id))
	m.varint(2, uint64(ttl))
	m.varint(3, uint64(remaining))
	return m
}

// alarmRecord is etcdserverpb.AlarmMember; kind 1 is NOSPACE, 2 CORRUPT.
func alarmRecord(member uint64, kind uint64) []byte {
	var m message
	m.varint(1, member)
	m.varint(2, kind)
	return m
}

// userRecord is authpb.User; one without a password has the option that says so.
func userRecord(name string, password []byte, roles []string) []byte {
	var m message
	m.bytes(1, []byte(name))
	m.bytes(2, password)
	for _, role := range roles {
		m.element(3, []byte(role))
	}
	var options message
	if len(password) == 0 {
		options.varint(1, 1)
	}
	m.element(4, options)
	return m
}

// permission is authpb.Permission; kind 0 is READ, 1 WRITE, 2 READWRITE.
type permission struct {
	kind     uint64
	key, end []byte
}

// roleRecord is authpb.Role.
func roleRecord(name string, permissions []permission) []byte {
	var m message
	m.bytes(1, []byte(name))
	for _, p := range permissions {
		var inner message
		inner.varint(1, p.kind)
		inner.bytes(2, p.key)
		inner.bytes(3, p.end)
		m.element(2, inner)
	}
	return m
}

// revision is (main, sub), and whether it ends a key's life.
type revision struct {
	main, sub int64
	tombstone bool
}

func (r revision) encode() []byte {
	key := binary.BigEndian.AppendUint64(nil, uint64(r.main))
	key = append(key, '_')
	key = binary.BigEndian.AppendUint64(key, uint64(r.sub))
	if r.tombstone {
		key = append(key, 't')
	}
	return key
}

func bigEndian(n uint64) []byte {
	return binary.BigEndian.AppendUint64(nil, n)
}

package balancer

// ShareDevices tells replicas which of them run on the same device. NewSnapshot
// does it for the fleet; a replica that is not in the list shares nothing.
func ShareDevices(replicas []*Replica) {
	byDevice := make(map[string][]*Replica)
	for _, r := range replicas {
		if r.Device != "" {
			byDevice[r.Device] = append(byDevice[r.Device], r)
		}
	}
	for _, r := range replicas {
		if group := byDevice[r.Device]; len(group) > 1 {
			r.load.group.Store(&group)
		} else {
			r.load.group.Store(nil)
		}
		r.load.changed()
	}
}

// Neighbours returns all replicas on the device of r, with r itself; nil when
// nobody shares it. The slice must not be changed.
func (r *Replica) Neighbours() []*Replica {
	if group := r.load.group.Load(); group != nil {
		return *group
	}
	return nil
}

func shareDevices(states []ReplicaState) {
	replicas := make([]*Replica, len(states))
	for i := range states {
		replicas[i] = states[i].Replica
	}
	ShareDevices(replicas)
}

use super::*;

#[test]
fn a_component_is_alone_but_for_its_bridges() {
    let component = Component {
        members: vec![Machine(0), Machine(2)],
        bridges: vec![Machine(3)],
        client: 1,
        level: Level::Weak,
        loads: 1,
    };
    let mut plan = Plan::quiet(4);
    plan.patrons = vec![PatronPlan::idle(1); 2];
    let cuts = component.cuts(&plan.parties());
    let (inside, outside) = (Machine(0).party(), Machine(1).party());
    let (bridge, client) = (Machine(3).party(), Party::Client(1));
    for pair in
        [(inside, outside), (outside, inside), (client, outside), (inside, Party::Client(0))]
    {
        assert!(cuts.contains(&pair), "{pair:?}");
    }
    for pair in
        [(inside, Machine(2).party()), (client, inside), (bridge, inside), (outside, bridge)]
    {
        assert!(!cuts.contains(&pair), "{pair:?}");
    }
}

#[test]
fn twins_run_the_replica_whose_name_they_have() {
    let mut plan = Plan::quiet(4);
    plan.twins = vec![ReplicaId(2)];
    assert_eq!(plan.machines().count(), 5);
    assert_eq!(plan.replica_on(Machine(2)), ReplicaId(2));
    assert_eq!(plan.replica_on(Machine(4)), ReplicaId(2));
}

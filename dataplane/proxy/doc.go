// Package proxy stores and reads objects over fragment stores: it cuts an object into chunks, erasure
// codes them, places the fragments, writes them to all ASDs in parallel, and keeps the manifests.
//
// The life of an object:
//
//	Put      takes a put id; codes chunk by chunk on the coding workers; hands the fragments to the ASDs.
//	         Good once all k+m fragments of every chunk are written, or c of them and a grace has passed.
//	         The object does not exist yet: a crash now leaves garbage, which CollectGarbage finds.
//	Commit   one transaction writes the manifest, asserting owner, put id and absence. The object exists.
//	         Fragments that land later are entered into the manifest by compare-and-swap.
//	Get      reads a range; what an ASD does not give is rebuilt from k others.
//	Delete   one transaction turns the manifest into a delete record; the record goes when every ASD
//	         has deleted its fragments, and is resumed after a restart.
//
// What keeps it right (design, section 4): a put id is used for one attempt and then never again, so that no
// late write of a failed attempt can be taken for a later one's; a put id that nobody committed is condemned
// in the metadata store before anything of it is deleted, and a commit asserts that its own is not condemned;
// whatever changes a namespace asserts its owner's epoch.
//
// Everything here blocks and belongs on plain goroutines, never on a loop. Start reading at put.go.
package proxy
